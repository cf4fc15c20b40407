"""Ratios of what a fine-tune's layers lose to what its base's do, told by a few probes.

A few probes tell a layer's noise to a factor of two or so; but the noises of a base are known well,
and those of its fine-tune are near them, times a factor for each layer. So the factors are drawn
together as much as the probes' own spread calls for (empirical Bayes): that is told by leaving each
probe out in turn, and is what the logarithms of factors vary by if the layers do not differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Factors:
    """Factors of layers' noises.

    Attributes:
        by_layer: layer → factor, of the layers that were probed.
        typical: of a layer that was not.
    """

    by_layer: Mapping[str, float]
    typical: float

    def of(self, layer: str) -> float:
        """Factor of a layer."""
        return self.by_layer.get(layer, self.typical)


def factors_of(relative: Mapping[str, Floats]) -> Factors:
    """The factors that probes tell.

    Args:
        relative: layer → noise that each probe tells, over the base's, [probes]; 2 or more probes.
    """
    told = {name: each for name, each in relative.items() if each.mean() > 0}
    if not told:
        return Factors({}, 1.0)
    rows = np.stack(list(told.values()))
    logs, chance = np.log(rows.mean(axis=1)), _chance(rows)
    middle = float(logs.mean())
    between = max(0.0, float(logs.var(ddof=1)) - chance) if len(logs) > 1 else 0.0
    share = between / (between + chance) if between + chance > 0 else 0.0
    # The expectation of a mean's logarithm is lower by half of its variance.
    drawn = middle + share * (logs - middle) + chance / 2
    return Factors(
        {name: float(np.exp(each)) for name, each in zip(told, drawn, strict=True)},
        float(np.exp(middle + chance / 2)),
    )


def _chance(rows: Floats) -> float:
    """Variance of the logarithm of a layer's mean by chance, by the jackknife over probes.

    The probes are of as many samples in every layer, so that one figure serves all.
    """
    count = rows.shape[1]
    others = (rows.sum(axis=1, keepdims=True) - rows) / (count - 1)
    logs = np.log(np.maximum(others, np.finfo(np.float64).tiny))
    return float((count - 1) * logs.var(axis=1).mean())
