"""Parts of a weight graph as tensors: nodes, edges, and the roots that are read at each hop."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import torch
from torch import Tensor

from mezzotint.models import Block, WeightGraph
from mezzotint.predictors.dataset import choosing

#: Layers of the published network: hops that it sees.
HOPS = 4


@dataclass(frozen=True, eq=False)
class Subgraph:
    """Some nodes of a weight graph, and the edges among them.

    Attributes:
        nodes: int64 [k], their indices in the whole graph.
        edges: int64 [2, e], (source, reader) as positions in `nodes`; every node reads itself.
    """

    nodes: Tensor
    edges: Tensor
    _copies: list[Tensor] = field(default_factory=list, repr=False)

    @classmethod
    def of(cls, nodes: Sequence[int], edges: Iterable[tuple[int, int]]) -> Self:
        """The part of a graph on these nodes; edges to others are left out."""
        place = {node: position for position, node in enumerate(nodes)}
        inner = [(place[s], place[r]) for s, r in edges if s != r and s in place and r in place]
        own = [(position, position) for position in range(len(nodes))]
        return cls(torch.tensor(nodes), torch.tensor(inner + own).T.contiguous())

    def batched(self, count: int) -> Tensor:
        """Edges of `count` copies of these nodes, one after the other: int64 [2, count·e]."""
        length = count * self.edges.shape[1]
        # The edges of fewer copies are the first of those of more: only the most are kept.
        if not self._copies or self._copies[0].shape[1] < length:
            offset = torch.arange(count).repeat_interleave(self.edges.shape[1]) * len(self.nodes)
            self._copies[:] = [self.edges.repeat(1, count) + offset]
        return self._copies[0][:, :length]


@dataclass(frozen=True, eq=False)
class Topology:
    """The whole graph as the network reads it.

    Attributes:
        whole: all nodes.
        slots: int64 [weight nodes], index of each that has a choice among all nodes.
        pools: of each hop, int64 indices of the nodes whose mean embedding is read there.
        ranked: of each hop, True where it has roots, so that a rank loss applies.
    """

    whole: Subgraph
    slots: Tensor
    pools: tuple[Tensor, ...]
    ranked: tuple[bool, ...]

    @classmethod
    def of(cls, graph: WeightGraph, blocks: Sequence[Block]) -> Self:
        """A graph's, with the roots of blocks.

        Hop 0 reads all weight nodes that have a choice, hop h the roots of blocks of h hops, or all
        nodes where there are none. There are as many hops as the deepest block has, four at least.
        """
        everything = range(len(graph.nodes))
        slots = [node.index for node in choosing(graph)]
        roots = [
            sorted({block.root for block in blocks if block.hops == hop})
            for hop in range(1, max([HOPS, *(block.hops for block in blocks)]) + 1)
        ]
        return cls(
            Subgraph.of(everything, graph.edges),
            torch.tensor(slots),
            (torch.tensor(slots), *(torch.tensor(each or [*everything]) for each in roots)),
            (True, *map(bool, roots)),
        )

    @property
    def hops(self) -> int:
        """Hops that are seen, and layers of the network."""
        return len(self.pools) - 1

    def expanded(self, configurations: np.ndarray[tuple[int, int], np.dtype[np.int64]]) -> Tensor:
        """Choices of all nodes, int64 [m, nodes], from those of weight nodes [m, weight nodes]."""
        choices = torch.zeros(len(configurations), len(self.whole.nodes), dtype=torch.int64)
        choices[:, self.slots] = torch.from_numpy(configurations)
        return choices
