"""The graph of weights, made from the traced graph of a call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import accumulate
from typing import cast

from torch import nn

from mezzotint.errors import ModelError, UsageError
from mezzotint.models.graph import Graph, Node
from mezzotint.models.inventory import Layer, layers_in
from mezzotint.models.places import OUTSIDE, places_of
from mezzotint.models.weight_graph import CombineKind, CombineNode, WeightGraph, WeightNode

HALVES = ("first", "second")


def weight_graph(
    denoiser: nn.Module, graph: Graph, splits: Mapping[str, int] | None = None
) -> WeightGraph:
    """The graph of a denoiser's weights.

    A weight that is used several times, by one layer or by tied ones, is one node, and so are the
    operations that come again with it. What is computed and never read is left out, unless it is a
    weight's.

    Args:
        denoiser: the floating model, or its skeleton.
        graph: its traced graph.
        splits: layer → input channels of its first half, for layers whose halves are two weights
            (see `joined_inputs`). Each half reads its own part where the input is a concatenation
            of such parts, and the halves' results are added.

    Raises:
        ModelError: values leave torch in one of the modules, which the message names, or no
            floating layer has a part in the output.
        UsageError: `splits` names a layer that cannot be split so.
    """
    for name in graph.left:
        module = denoiser.get_submodule(name)
        where = f"{type(module).__name__} {name}" if name else type(module).__name__
        raise ModelError(
            f"{where}: takes the values of tensors out of torch (as numbers or arrays), where they "
            "cannot be followed; compute with tensors in its forward method"
        )
    layers = {layer.name: layer for layer in layers_in(denoiser, graph)}
    splits = {graph.tied.get(name, name): first for name, first in (splits or {}).items()}
    for name, first in splits.items():
        _check_split(layers.get(name), name, first)
    building = _Building(graph, layers, splits)
    for index in range(len(graph.nodes)):
        building.follow(index)
    if graph.output is None or building.origins[graph.output] is None:
        raise ModelError(
            f"{type(denoiser).__name__}: no floating Linear or Conv has a part in its output; give "
            "the model as it was before it was packed"
        )
    return building.weight_graph(denoiser)


def _check_split(layer: Layer | None, name: str, first: int) -> None:
    if layer is None:
        raise UsageError(f"splits: {name}: the model has no such layer")
    if layer.kind not in ("linear", "conv2d") or layer.groups != 1:
        raise UsageError(f"splits: {name}: only Linear and Conv2d without groups can be split")
    if not 0 < first < layer.in_features:
        raise UsageError(
            f"splits: {name}: {first} of its {layer.in_features} input channels; give 1 to "
            f"{layer.in_features - 1}"
        )


class _Building:
    """The nodes so far, and the node that each traced node's values come from.

    Attributes:
        origins: for each traced node followed so far, the node of the new graph; None for
            arguments.
    """

    def __init__(
        self, graph: Graph, layers: Mapping[str, Layer], splits: Mapping[str, int]
    ) -> None:
        self.origins: list[int | None] = []
        self._graph = graph
        self._layers = layers
        self._splits = splits
        self._nodes: list[WeightNode | CombineNode] = []
        self._edges: dict[tuple[int, int], None] = {}
        self._outputs: dict[str, int] = {}
        """Layer → the node that its output comes from."""
        self._runs: list[int] = []
        """For each traced node, how many times its layers had run before."""
        self._uses: Counter[str] = Counter()
        self._joins: dict[tuple[object, ...], int] = {}
        self._met: Counter[tuple[object, ...]] = Counter()

    def follow(self, index: int) -> None:
        """Take in the next traced node."""
        node = self._graph.nodes[index]
        run = max((self._runs[source] for source in node.sources), default=0)
        if node.kind == "layer":
            name = self._graph.tied.get(node.name, node.name)
            run = max(run, self._uses[name])
            self._uses[name] += 1
            self.origins.append(self._layer(name, node))
        else:
            self.origins.append(self._join(node, run))
        self._runs.append(run)

    def weight_graph(self, denoiser: nn.Module) -> WeightGraph:
        """The graph, without operations that nothing reads."""
        output = None if self._graph.output is None else self.origins[self._graph.output]
        kept = self._read(output)
        numbers = {old: new for new, old in enumerate(kept)}
        names = [
            node.layer if isinstance(node, WeightNode) else node.name
            for node in (self._nodes[index] for index in kept)
        ]
        nodes = tuple(
            replace(self._nodes[old], index=new, place=place)
            for (old, new), place in zip(numbers.items(), places_of(names, denoiser), strict=True)
        )
        edges = [(numbers[s], numbers[r]) for s, r in self._edges if {s, r} <= numbers.keys()]
        return WeightGraph(nodes, tuple(sorted(edges, key=lambda edge: (edge[1], edge[0]))))

    def _layer(self, name: str, node: Node) -> int:
        first = self._splits.get(name)
        layer = self._layers[name]
        if first is None:
            index = self._weight(layer, name)
            self._read_by(index, node.sources)
            return index
        halves = [self._weight(layer, f"{name}/{half}") for half in HALVES]
        for half, sources in zip(halves, self._parts(node, first), strict=True):
            self._read_by(half, sources)
        if name not in self._outputs:
            self._outputs[name] = self._append(CombineNode(len(self._nodes), "add", name, OUTSIDE))
        for half in halves:
            self._edge(half, self._outputs[name])
        return self._outputs[name]

    def _weight(self, layer: Layer, key: str) -> int:
        """The node of that key; a new one, if there is none."""
        if key in self._outputs:
            return self._outputs[key]
        first = self._splits.get(layer.name, 0)
        half = key.removeprefix(layer.name)
        inputs = {"": layer.in_features, "/first": first}.get(half, layer.in_features - first)
        node = WeightNode(
            index=len(self._nodes),
            key=key,
            layer=layer.name,
            role=layer.role,
            operation=layer.kind,
            weights=layer.parameters // layer.in_features * inputs,
            inputs=inputs,
            outputs=layer.out_features,
            place=OUTSIDE,
            quantizable=layer.supported,
        )
        self._outputs[key] = self._append(node)
        return self._outputs[key]

    def _parts(self, node: Node, first: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Traced nodes that the first and the second half of a layer's input channels come from."""
        if len(node.sources) == 1 and self._graph.nodes[node.sources[0]].kind == "concatenate":
            join = self._graph.nodes[node.sources[0]]
            axis = -1 if node.operation == "linear" else -3
            sizes = [read.shape[axis] for read in join.inputs if len(read.shape) >= -axis]
            ends = list(accumulate(sizes))
            if len(sizes) == len(join.inputs) and join.output[axis] == ends[-1] and first in ends:
                parts = [() if read.source is None else (read.source,) for read in join.inputs]
                border = ends.index(first) + 1
                return sum(parts[:border], ()), sum(parts[border:], ())
        return node.sources, node.sources

    def _join(self, node: Node, run: int) -> int | None:
        """The node that a join is, or the one that its values come from."""
        found = {self.origins[source] for source in node.sources} - {None}
        sources = cast("set[int]", found)
        if len(sources) < 2:
            return next(iter(sources), None)
        same = (node.name, node.kind, node.operation, frozenset(sources))
        self._met[same, run] += 1
        key = (*same, self._met[same, run])
        if run == 0 or key not in self._joins:
            kind = cast("CombineKind", node.kind)
            self._joins[key] = self._append(CombineNode(len(self._nodes), kind, node.name, OUTSIDE))
        index = self._joins[key]
        for source in sources:
            self._edge(source, index)
        return index

    def _append(self, node: WeightNode | CombineNode) -> int:
        self._nodes.append(node)
        return node.index

    def _read_by(self, index: int, sources: Iterable[int]) -> None:
        for source in sources:
            origin = self.origins[source]
            if origin is not None:
                self._edge(origin, index)

    def _edge(self, source: int, reader: int) -> None:
        if source != reader:
            self._edges[source, reader] = None

    def _read(self, output: int | None) -> list[int]:
        """Indices of weights, and of joins that a weight or the output is computed from."""
        sources: dict[int, list[int]] = {}
        for source, reader in self._edges:
            sources.setdefault(reader, []).append(source)
        pending = [node.index for node in self._nodes if isinstance(node, WeightNode)]
        pending += [] if output is None else [output]
        kept = {*pending}
        while pending:
            new = {*sources.get(pending.pop(), ())} - kept
            kept |= new
            pending += new
        return sorted(kept)
