"""Growing a data-flow graph node by node. Knows indices and shapes, but no tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from mezzotint.models.graph import Graph, Node, NodeInput, NodeKind

Join = NodeKind | Literal["write"]
"""A kind of join, or `write`: a tensor takes another in, at some of its places."""

_SCALING = frozenset({"multiply", "modulation"})
_ARITHMETIC = frozenset({"add", "multiply"})


class GraphBuilder:
    """The nodes so far, in order of execution.

    One join stands for what several functions compute of the same sources, where the first is a
    product: `norm(x) * (1 + scale) + shift` is one modulation of x by the layer that gives scale
    and shift, and `q * cos + rotated(q) * sin` one of q by the positions.
    """

    def __init__(self) -> None:
        self._nodes: list[Node] = []
        self._same: dict[int, int] = {}
        """Node → the earlier node that it turned out to be one with."""

    def append(self, node: Node) -> int:
        """Add a node; its index."""
        self._nodes.append(node)
        return len(self._nodes) - 1

    def join(self, kind: Join, node: Node) -> int | None:
        """The origin of what a function puts out that reads the inputs of `node`.

        Without sources it is None, with one that source. With several it is a node that joins them:
        an earlier one that stands for the same, or else `node` itself, as a node of that kind.
        """
        inputs = tuple(replace(read, source=self._found(read.source)) for read in node.inputs)
        node = replace(node, inputs=inputs)
        if len(node.sources) < 2:
            return next(iter(node.sources), None)
        for index in sorted(node.sources):
            others = [source for source in node.sources if source != index]
            if all(self._part_of(index, other, kind) for other in others):
                self._merge(index, others, kind)
                return index
        return self.append(replace(node, kind="concatenate" if kind == "write" else kind))

    @property
    def functional(self) -> frozenset[str]:
        """Layers whose weights functions read."""
        return frozenset(node.name for node in self._nodes if node.functional)

    def computed(self, index: int) -> bool:
        """True if a layer has a part in the values of a node."""
        pending, seen = [index], {index}
        while pending:
            node = self._nodes[pending.pop()]
            if node.kind == "layer":
                return True
            new = {*node.sources} - seen
            pending += new
            seen |= new
        return False

    def graph(
        self,
        output: int | None,
        layers: Iterable[str],
        tied: Mapping[str, str] | None = None,
        left: tuple[str, ...] = (),
        norms: Mapping[str, tuple[str, ...]] | None = None,
    ) -> Graph:
        """Graph that was built.

        Args:
            output: index of the node that the denoiser's output comes from.
            layers: all layers of the denoiser, in order of definition.
            tied: see `Graph`.
            left: see `Graph`.
            norms: see `Graph`.
        """
        kept = [index for index in range(len(self._nodes)) if index not in self._same]
        numbers = {index: number for number, index in enumerate(kept)}

        def renumbered(read: NodeInput) -> NodeInput:
            source = self._found(read.source)
            return replace(read, source=None if source is None else numbers[source])

        nodes = tuple(
            replace(node, inputs=tuple(map(renumbered, node.inputs)))
            for node in (self._nodes[index] for index in kept)
        )
        seen = {node.name for node in nodes if node.kind == "layer"}
        end = self._found(output)
        return Graph(
            nodes=nodes,
            output=None if end is None else numbers[end],
            idle=tuple(name for name in layers if name not in seen),
            tied=tied or {},
            left=left,
            norms=norms or {},
        )

    def _found(self, index: int | None) -> int | None:
        return index if index is None else self._same.get(index, index)

    def _sources(self, index: int) -> set[int | None]:
        return {self._found(source) for source in self._nodes[index].sources}

    def _part_of(self, index: int, other: int, kind: Join) -> bool:
        """True if a join with `other` leaves node `index` a function of its own sources."""
        first, second = self._nodes[index], self._nodes[other]
        scales = first.kind in _SCALING
        if other in self._sources(index):
            written = kind == "write" and first.kind not in ("input", "layer")
            return written or (scales and kind in _ARITHMETIC)
        # Two products of the same sources. Readers of the later one stay behind the earlier one
        # when the two become one.
        twins = scales and second.kind in _SCALING and other > index
        joins = kind in _ARITHMETIC | {"write", "concatenate"}
        return joins and twins and self._sources(other) <= self._sources(index)

    def _merge(self, index: int, others: Sequence[int], kind: Join) -> None:
        twins = [other for other in others if other not in self._sources(index)]
        for old, new in self._same.items():
            if new in twins:
                self._same[old] = index
        self._same.update(dict.fromkeys(twins, index))
        if self._nodes[index].kind == "multiply" and (kind == "add" or twins):
            self._nodes[index] = replace(self._nodes[index], kind="modulation")
