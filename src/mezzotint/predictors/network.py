"""The graph network: a node encoder, GATv2 layers whose embeddings are never negative, an MLP."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from typing_extensions import override

from mezzotint.errors import PredictorError
from mezzotint.predictors.features import NodeFeatures
from mezzotint.predictors.subgraph import Subgraph, Topology

if TYPE_CHECKING:
    from torch_geometric.nn import GATv2Conv

WIDTH, ENCODED = 64, 16


def graph_attention(inputs: int, outputs: int) -> GATv2Conv:
    """A layer of graph attention with one head; the edges that it is given hold self-loops.

    Raises:
        PredictorError: PyTorch Geometric is not installed.
    """
    try:
        with warnings.catch_warnings():
            # Said of `torch.jit.script`, which its import calls and nobody here does.
            warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
            from torch_geometric.nn import GATv2Conv  # noqa: PLC0415
    except ImportError as cause:
        raise PredictorError(
            "predictor 'network': needs PyTorch Geometric; install mezzotint[predictor]"
        ) from cause
    return GATv2Conv(inputs, outputs, add_self_loops=False)


class NodeEncoder(nn.Module):
    """Features of one node to its embedding at hop 0: float32 [rows, 16], none below 0."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        """Set up for columns of so many categories: method, bits, then codes."""
        super().__init__()
        widths = [5, 5] + [10] * (len(sizes) - 2)
        self.categories = nn.ModuleList(map(nn.Embedding, sizes, widths))
        self.numbers = nn.ModuleList(nn.Linear(1, 5) for _ in range(2))
        width = sum(widths) + 10
        self.mixed = nn.Sequential(
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Linear(width, WIDTH),
            nn.BatchNorm1d(WIDTH),
            nn.ReLU(),
            nn.Linear(WIDTH, ENCODED),
            nn.BatchNorm1d(ENCODED),
            nn.ReLU(),
        )

    @override
    def forward(self, categories: Tensor, numbers: Tensor) -> Tensor:
        parts = [embed(column) for embed, column in zip(self.categories, categories.T, strict=True)]
        parts += [read(numbers[:, i : i + 1]) for i, read in enumerate(self.numbers)]
        found: Tensor = self.mixed(torch.cat(parts, 1))
        return found


class GraphLayer(nn.Module):
    """Graph attention, batch norm, ReLU; from the second layer on with a residual.

    What goes in from such a layer's own kind is never negative, and neither is what comes out. On
    that rests every score: the L1 norm of a mean is then the mean of the L1 norms.
    """

    def __init__(self, inputs: int, *, residual: bool) -> None:
        super().__init__()
        self.attention = graph_attention(inputs, WIDTH)
        self.norm = nn.BatchNorm1d(WIDTH)
        self.residual = residual

    @override
    def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
        found: Tensor = self.norm(self.attention(nodes, edges)).relu()
        return found + nodes if self.residual else found


@dataclass(frozen=True, eq=False)
class Reading:
    """Predictions and norms of m configurations.

    Attributes:
        predicted: float32 [m], on the fold's scale, before any prior is added.
        norms: float32 [m, hops + 1], L1 norm of the embedding that is pooled at each hop.
    """

    predicted: Tensor
    norms: Tensor


class GraphNetwork(nn.Module):
    """Predictor of configurations of one graph.

    Attributes:
        features: of its nodes.
        topology: of its graph.
    """

    def __init__(self, features: NodeFeatures, topology: Topology) -> None:
        super().__init__()
        self.features, self.topology = features, topology
        self.encoder = NodeEncoder(features.sizes)
        self.layers = nn.ModuleList(
            GraphLayer(WIDTH if hop else ENCODED, residual=hop > 0) for hop in range(topology.hops)
        )
        sides = [module for _ in range(4) for module in (nn.Linear(WIDTH, WIDTH), nn.ReLU())]
        last = nn.Linear(WIDTH, 1)
        # The network begins as what it adds to, and by adding nothing.
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.head = nn.Sequential(*sides, last)

    def embeddings(self, part: Subgraph, choices: Tensor, hops: int) -> list[Tensor]:
        """Embeddings of a part's nodes at hop 0 to `hops`, float32 [m, k, width] each.

        Args:
            part: k nodes.
            choices: int64 [m, k], indices of formats.
            hops: layers to go through.
        """
        edges = part.batched(len(choices))
        nodes = self.encoder(*self.features.taken(part.nodes, choices))
        found = [nodes]
        for layer in self.layers[:hops]:
            nodes = layer(nodes, edges)
            found.append(nodes)
        return [each.unflatten(0, choices.shape) for each in found]

    @override
    def forward(self, choices: Tensor) -> Reading:
        """Read configurations, int64 [m, nodes]."""
        topology = self.topology
        embeddings = self.embeddings(topology.whole, choices, topology.hops)
        pooled = [
            each[:, pool].mean(1) for each, pool in zip(embeddings, topology.pools, strict=True)
        ]
        norms = torch.stack([each.abs().sum(1) for each in pooled], 1)
        return Reading(self.head(pooled[-1]).squeeze(1), norms)
