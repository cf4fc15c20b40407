"""Graph networks of all folds: predictions with spread, and scores of blocks and choices."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from typing_extensions import override

from mezzotint.errors import PredictorError
from mezzotint.models import Block
from mezzotint.predictors.dataset import FloatArray, IntArray
from mezzotint.predictors.ensemble_files import load_ensemble, save_ensemble
from mezzotint.predictors.monotone_fit import MonotoneFit
from mezzotint.predictors.network_model import NetworkModel
from mezzotint.predictors.predictor import (
    FoldTask,
    Predictor,
    noises_of,
    register_predictor,
)
from mezzotint.predictors.subgraph import Subgraph
from mezzotint.predictors.sums import SumModel


@register_predictor("network")
class Ensemble(Predictor[NetworkModel]):
    """Graph network per fold, as Qua2SeDiMo has it.

    Scores compare variants of one block, or choices of one layer, with each other; the higher, the
    better. They are in units of no target.
    """

    @override
    @classmethod
    def fit_fold(cls, task: FoldTask) -> NetworkModel:
        return NetworkModel.fit(task, cls.prior(task))

    @classmethod
    def prior(cls, task: FoldTask) -> SumModel:
        """Starting point of the networks, to which they add: the mean target."""
        mean = float(task.targets[task.fold.known].mean())
        return SumModel(np.zeros_like(task.dataset.bytes), MonotoneFit(mean, 0.0, 0.0, 1.0))

    def block_scores(
        self, block: Block, variants: npt.ArrayLike, others: IntArray | None = None
    ) -> FloatArray:
        """Scores of variants of a block, as a graph of its own: float64 [v].

        The block holds every node that its root sees, so its score is the same within the whole
        graph. Memory does not grow with the number of nodes times variants.

        Args:
            block: of the graph that was learned.
            variants: integers [v, weights of the block], indices of formats, in the order of
                `block.weights`.
            others: int64 [weight nodes], choices of weights that the root sees and that are scored
                with another block; those of the best labelled configuration by default.

        Raises:
            PredictorError: variants have another shape or an unknown format, or the block has
                another number of hops than any that was learned.
        """
        topology = self.fitted.models[0].network.topology
        if block.hops > topology.hops:
            raise PredictorError(
                f"block {block.name}: has {block.hops} hops, the predictor {topology.hops}"
            )
        given = np.asarray(variants)
        self._check_variants(block, given)
        background = self.evidence.best if others is None else others
        nodes = sorted(block.members)
        part = Subgraph.of(nodes, map(tuple, topology.whole.edges.T.tolist()))
        choices = topology.expanded(background[None])[:, part.nodes].repeat(len(given), 1)
        columns = [nodes.index(weight) for weight in block.weights]
        choices[:, columns] = torch.from_numpy(given.astype(np.int64))
        root = nodes.index(block.root)
        return sum(
            (model.scores(part, choices, root, block.hops) for model in self.fitted.models),
            np.zeros(len(given)),
        )

    def op_scores(self) -> FloatArray:
        """Scores of every choice of every layer at hop 0: float64 [weight nodes, formats]."""
        topology = self.fitted.models[0].network.topology
        part = Subgraph.of(topology.slots.tolist(), ())
        formats, nodes = len(self.space.formats), len(self.space.keys)
        choices = torch.arange(formats)[:, None].expand(formats, nodes)
        found = (model.scores(part, choices, None, 0) for model in self.fitted.models)
        return sum(found, np.zeros((formats, nodes))).T

    def _check_variants(self, block: Block, variants: npt.NDArray[np.generic]) -> None:
        width, formats = len(block.weights), len(self.space.formats)
        if variants.shape[1:] != (width,) or variants.dtype.kind not in "iu":
            raise PredictorError(
                f"block {block.name}: variants are {variants.dtype} of shape "
                f"{list(variants.shape)}; expected integers [any number, {width} weights]"
            )
        if variants.size and not (0 <= int(variants.min()) <= int(variants.max()) < formats):
            raise PredictorError(
                f"block {block.name}: a variant has a format beyond 0 to {formats - 1}"
            )

    def save(self, folder: str | Path) -> None:
        """Write a folder of safetensors and JSON, complete or not at all.

        Raises:
            PredictorError: it cannot be written.
            UsageError: something else stands there.
        """
        save_ensemble(self.fitted, self.kind, Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what `save` of the same kind wrote; nothing is unpickled.

        Raises:
            PredictorError: the folder is missing, of another kind, damaged or no such thing.
        """
        return cls(load_ensemble(Path(folder), cls.kind))


@register_predictor("residual")
class ResidualEnsemble(Ensemble):
    """Graph network per fold that adds to the calibrated sum of single-layer noises.

    The sum needs no labels and its curve few, so labels are left for what layers do to each other.
    """

    reads_noises = True

    @override
    @classmethod
    def prior(cls, task: FoldTask) -> SumModel:
        return SumModel.fit(noises_of(task.dataset, cls.kind), task)
