"""A falling curve through targets over sums, that keeps their order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.optimize import nnls

from mezzotint.predictors.dataset import FloatArray

#: Slope, as a share of spread over spread, of sums that tell nothing: their order stays.
_LEAST = 1e-6

#: Offset of logarithms, as a share of the median sum.
_FAR = 1e-3


@dataclass(frozen=True)
class MonotoneFit:
    """Targets as `level - linear·s - logarithmic·log(s + offset)` of sums s, no slope below 0.

    Attributes:
        level: target where both other terms are 0.
        linear: slope over s.
        logarithmic: slope over the logarithm.
        offset: far below sums that are common, so that a sum of 0 has a logarithm.
    """

    level: float
    linear: float
    logarithmic: float
    offset: float

    @classmethod
    def fit(cls, sums: FloatArray, targets: FloatArray) -> Self:
        """The closest curve in the sense of least squares; both are float64 [n], sums 0 or more."""
        offset = float(np.median(sums)) * _FAR or 1.0
        columns = np.stack([sums, np.log(sums + offset)], 1)
        spread = columns.std(0)
        spread = np.where(spread > 0, spread, 1.0)
        centered = (columns - columns.mean(0)) / spread
        slopes, _ = nnls(-centered, targets - targets.mean())
        if not slopes.any():
            slopes[0] = _LEAST * float(targets.std())
        linear, logarithmic = slopes / spread
        level = targets.mean() + columns.mean(0) @ (slopes / spread)
        return cls(float(level), float(linear), float(logarithmic), offset)

    def predict(self, sums: FloatArray) -> FloatArray:
        """Targets of sums, float64 [m]."""
        found: FloatArray = self.logarithmic * np.log(sums + self.offset)
        return self.level - self.linear * sums - found
