"""Predictors that add up one number per choice, and learn from labels no more than a curve."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from typing_extensions import override

from mezzotint.predictors.dataset import Dataset, FloatArray, IntArray, chosen
from mezzotint.predictors.monotone_fit import MonotoneFit
from mezzotint.predictors.predictor import (
    FoldModel,
    FoldTask,
    Predictor,
    noises_of,
    register_predictor,
)


@dataclass(frozen=True, eq=False)
class SumModel(FoldModel):
    """Targets that fall with a sum of costs.

    Attributes:
        costs: float64 [weight nodes, formats].
        curve: from sums to targets.
    """

    costs: FloatArray
    curve: MonotoneFit

    @classmethod
    def fit(cls, costs: FloatArray, task: FoldTask) -> SumModel:
        """The curve through all labels that a fold may learn from."""
        known = task.fold.known
        sums = chosen(costs, task.dataset.configurations[known]).sum(1)
        return cls(costs, MonotoneFit.fit(sums, task.targets[known]))

    @override
    def predict(self, configurations: IntArray) -> FloatArray:
        return self.curve.predict(chosen(self.costs, configurations).sum(1))


class SumPredictor(Predictor[SumModel]):
    """Sum of one cost per choice: its order owes nothing to labels, only its units do."""

    trains = False

    @classmethod
    @abstractmethod
    def costs(cls, dataset: Dataset) -> FloatArray:
        """Cost of every choice, float64 [weight nodes, formats]; the lower, the better."""

    @override
    @classmethod
    def fit_fold(cls, task: FoldTask) -> SumModel:
        return SumModel.fit(cls.costs(task.dataset), task)


@register_predictor("bits")
class StoredBits(SumPredictor):
    """The more bytes are stored, the better."""

    @override
    @classmethod
    def costs(cls, dataset: Dataset) -> FloatArray:
        # Bytes that are saved, against the largest choice of each layer.
        largest: FloatArray = dataset.bytes.max(1, keepdims=True)
        return largest - dataset.bytes


@register_predictor("error")
class WeightErrors(SumPredictor):
    """Σ over all weights of |w-ŵ|^2.4."""

    @override
    @classmethod
    def costs(cls, dataset: Dataset) -> FloatArray:
        return dataset.weight_errors * dataset.weights[:, None]


@register_predictor("noise")
class SingleNoises(SumPredictor):
    """Σ over layers of the noise that each choice alone adds to the output."""

    reads_noises = True

    @override
    @classmethod
    def costs(cls, dataset: Dataset) -> FloatArray:
        return noises_of(dataset, cls.kind)
