"""Ridge regressions, on the choices themselves and on single-layer noises."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from typing_extensions import override

from mezzotint.predictors.dataset import Dataset, FloatArray, IntArray, chosen
from mezzotint.predictors.predictor import (
    FoldModel,
    FoldTask,
    Predictor,
    noises_of,
    register_predictor,
)

#: Penalties that are tried, in units of the mean eigenvalue of the Gram matrix.
_PENALTIES = np.logspace(-4, 4, 33)

Inputs = Callable[[IntArray], FloatArray]


@dataclass(frozen=True, eq=False)
class RidgeModel(FoldModel):
    """Targets as a linear function of inputs.

    Attributes:
        inputs: float64 [m, features] of configurations.
        slopes: float64 [features].
        level: target of inputs that are all 0.
    """

    inputs: Inputs
    slopes: FloatArray
    level: float

    @override
    def predict(self, configurations: IntArray) -> FloatArray:
        return self.level + self.inputs(configurations) @ self.slopes


def ridge(inputs: FloatArray, targets: FloatArray) -> tuple[FloatArray, float]:
    """Slopes, float64 [features], and level with the least error of leaving one label out.

    The error of each label, predicted by all others, is known in closed form for every penalty
    (Allen's PRESS), from one eigendecomposition of the Gram matrix of the labels.

    Args:
        inputs: float64 [n, features].
        targets: float64 [n].
    """
    centered, mean = inputs - inputs.mean(0), targets.mean()
    values, vectors = np.linalg.eigh(centered @ centered.T)
    values = np.maximum(values, 0.0)
    unit = values.mean() or 1.0
    along = vectors.T @ (targets - mean)
    best: tuple[float, FloatArray] = (np.inf, along)
    for penalty in _PENALTIES * unit:
        kept = values / (values + penalty)
        leverage = 1 / len(targets) + (vectors**2) @ kept
        residual = targets - mean - vectors @ (kept * along)
        error = float(np.mean((residual / np.maximum(1 - leverage, 1e-9)) ** 2))
        if error < best[0]:
            best = (error, vectors @ (along / (values + penalty)))
    slopes = centered.T @ best[1]
    return slopes, float(mean - inputs.mean(0) @ slopes)


def one_hot(configurations: IntArray, formats: int) -> FloatArray:
    """Choices as float64 [m, weight nodes × formats], 1 where a format is chosen."""
    return np.eye(formats)[configurations].reshape(len(configurations), -1)


class RidgePredictor(Predictor[RidgeModel]):
    """Ridge regression whose penalty is chosen by leaving labels out one by one."""

    trains = False

    @classmethod
    @abstractmethod
    def inputs(cls, dataset: Dataset) -> Inputs:
        """Function from configurations to inputs of the regression."""

    @override
    @classmethod
    def fit_fold(cls, task: FoldTask) -> RidgeModel:
        inputs, known = cls.inputs(task.dataset), task.fold.known
        fitted = ridge(inputs(task.dataset.configurations[known]), task.targets[known])
        return RidgeModel(inputs, *fitted)


@register_predictor("ridge-choices")
class RidgeOnChoices(RidgePredictor):
    """Every choice of every layer adds a number of its own."""

    @override
    @classmethod
    def inputs(cls, dataset: Dataset) -> Inputs:
        formats = len(dataset.formats)
        return lambda configurations: one_hot(configurations, formats)


@register_predictor("ridge-noises")
class RidgeOnNoises(RidgePredictor):
    """The noise that every layer's choice adds alone, each with a slope of its own."""

    reads_noises = True

    @override
    @classmethod
    def inputs(cls, dataset: Dataset) -> Inputs:
        noises = noises_of(dataset, cls.kind)
        return lambda configurations: chosen(noises, configurations)
