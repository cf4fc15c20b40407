"""Gradient-boosted trees on the choices and on stored bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from typing_extensions import override

from mezzotint.errors import PredictorError
from mezzotint.predictors.dataset import Dataset, FloatArray, IntArray
from mezzotint.predictors.predictor import FoldModel, FoldTask, Predictor, register_predictor
from mezzotint.predictors.ridge import one_hot

_TREES = {"n_estimators": 300, "learning_rate": 0.05, "max_depth": 3, "subsample": 0.7}


@dataclass(frozen=True, eq=False)
class TreesModel(FoldModel):
    """Targets as a sum of small trees.

    Attributes:
        dataset: whose choices are read.
        trees: scikit-learn's.
    """

    dataset: Dataset
    trees: Any

    @override
    def predict(self, configurations: IntArray) -> FloatArray:
        found: FloatArray = self.trees.predict(_inputs(self.dataset, configurations))
        return found


@register_predictor("trees")
class BoostedTrees(Predictor[TreesModel]):
    """Gradient-boosted regression trees, as scikit-learn grows them."""

    trains = False

    @override
    @classmethod
    def fit_fold(cls, task: FoldTask) -> TreesModel:
        try:
            from sklearn.ensemble import GradientBoostingRegressor  # noqa: PLC0415
        except ImportError as cause:
            raise PredictorError(
                "predictor 'trees': needs scikit-learn; install mezzotint[predictor]"
            ) from cause
        known = task.fold.known
        trees = GradientBoostingRegressor(
            **_TREES, max_features="sqrt", random_state=task.options.seed + task.number
        )
        trees.fit(_inputs(task.dataset, task.dataset.configurations[known]), task.targets[known])
        return TreesModel(task.dataset, trees)


def _inputs(dataset: Dataset, configurations: IntArray) -> FloatArray:
    """Choices, and the bits that they store: float64 [m, weight nodes × formats + 1]."""
    bits = dataset.stored_bits(configurations)[:, None]
    return np.concatenate([one_hot(configurations, len(dataset.formats)), bits], 1)
