"""A trained graph network of one fold: predictions, and what scores are measured against."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from mezzotint.predictors.dataset import FloatArray, IntArray
from mezzotint.predictors.features import NodeFeatures
from mezzotint.predictors.figures import ndcg, spearman
from mezzotint.predictors.network import GraphNetwork
from mezzotint.predictors.options import HopWeight
from mezzotint.predictors.predictor import FoldModel, FoldTask
from mezzotint.predictors.subgraph import Subgraph, Topology
from mezzotint.predictors.sums import SumModel
from mezzotint.predictors.training import LabelRows, train

#: Nodes that go through the network at once, where no gradient is asked for: some 50 MiB.
_NODES = 2**15


@dataclass(frozen=True, eq=False)
class NetworkModel(FoldModel):
    """Graph network of one fold.

    Attributes:
        network: trained, in evaluation mode.
        prior: what the network adds to.
        means: float64 [hops + 1], mean L1 norm of the embeddings of all nodes at each hop, in all
            configurations that were fitted.
        spreads: float64 [hops + 1], their standard deviation.
        weights: float64 [hops + 1], by which scores at a hop count: 0 or more.
    """

    network: GraphNetwork
    prior: SumModel
    means: FloatArray
    spreads: FloatArray
    weights: FloatArray

    @classmethod
    def fit(cls, task: FoldTask, prior: SumModel) -> NetworkModel:
        """Train on a fold; the same task gives the same model, bit for bit."""
        seed = task.options.seed * task.options.folds + task.number
        topology = Topology.of(task.dataset.graph, task.blocks)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = GraphNetwork(NodeFeatures.of(task.dataset), topology)
        fitted, validation = (
            _rows(topology, prior, task, rows) for rows in (task.fold.train, task.fold.validation)
        )
        train(network, fitted, validation, task.options, seed)
        network.eval()
        means, spreads = _norm_statistics(network, fitted.choices)
        with torch.no_grad():
            norms = network(validation.choices).norms.double().numpy()
        targets = task.targets[task.fold.validation]
        weights = [hop_weight(task.options.hop_weight, each, targets) for each in norms.T]
        return cls(network, prior, means, spreads, np.array(weights))

    @override
    def predict(self, configurations: IntArray) -> FloatArray:
        choices = self.network.topology.expanded(configurations)
        with torch.no_grad():
            parts = [self.network(chunk).predicted for chunk in in_chunks(choices)]
        added: FloatArray = torch.cat(parts).double().numpy()
        return self.prior.predict(configurations) + added

    def scores(self, part: Subgraph, choices: Tensor, position: int | None, hop: int) -> FloatArray:
        """((‖h‖₁ - μ) / σ)·w of nodes at a hop: float64 [m], or [m, k] of all nodes.

        Args:
            part: k nodes.
            choices: int64 [m, k], indices of formats.
            position: of the node in the part; None for all of them.
            hop: whose embedding is scored.
        """
        found = []
        with torch.no_grad():
            for chunk in in_chunks(choices):
                norms = self.network.embeddings(part, chunk, hop)[hop].abs().sum(2)
                found.append(norms if position is None else norms[:, position])
        every: FloatArray = torch.cat(found).double().numpy()
        scores: FloatArray = (every - self.means[hop]) / self.spreads[hop] * self.weights[hop]
        return scores


def hop_weight(kind: HopWeight, norms: FloatArray, targets: FloatArray) -> float:
    """Figure by which a hop counts: none below 0, so that no fold votes against what it learned.

    Args:
        kind: name of the figure.
        norms: float64 [m], of the hop's pooled embedding.
        targets: float64 [m], on the fold's scale.
    """
    order = max(spearman(norms, targets), 0.0)
    figures = {"spearman": order, "ndcg": ndcg(norms, targets)}
    return figures[kind] if kind in figures else figures["spearman"] * figures["ndcg"]


def in_chunks(choices: Tensor) -> Iterator[Tensor]:
    """Rows of choices, int64 [m, k], as many at a time as memory is bounded for."""
    yield from torch.split(choices, max(1, _NODES // choices.shape[1]))


def _rows(topology: Topology, prior: SumModel, task: FoldTask, rows: IntArray) -> LabelRows:
    configurations = task.dataset.configurations[rows]
    return LabelRows(
        topology.expanded(configurations),
        torch.from_numpy(task.targets[rows]).float(),
        torch.from_numpy(prior.predict(configurations)).float(),
    )


def _norm_statistics(network: GraphNetwork, choices: Tensor) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation of the L1 norms of all nodes at each hop, float64 [hops + 1]."""
    topology = network.topology
    found = []
    with torch.no_grad():
        for chunk in in_chunks(choices):
            embeddings = network.embeddings(topology.whole, chunk, topology.hops)
            found.append(torch.stack([each.abs().sum(2).flatten() for each in embeddings]))
    norms = torch.cat(found, 1).double()
    spreads = norms.std(1, unbiased=False).numpy()
    return norms.mean(1).numpy(), np.where(spreads > 0, spreads, 1.0)
