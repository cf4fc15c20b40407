"""The loss that uncertain scores may cost: a bootstrapped bound on the regret of a solution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mezzotint.errors import UsageError


@dataclass(frozen=True)
class Regret:
    """Loss of a solution beyond that of the best one, which other samples would have shown.

    Attributes:
        bound: at the level asked for, as a fraction of the solution's loss.
        mean: of the resamples, likewise.
    """

    bound: float
    mean: float


def bootstrapped_regret(loss: float, others: Sequence[float], *, level: float = 0.95) -> Regret:
    """Estimate how much worse than the true optimum a solution is, whose scores were sampled.

    As scores from a sample are to the true ones, so are scores from a resample to those of the
    sample (Efron 1979). So every resampled problem is solved, and its solution is judged by the
    scores of the sample: what it loses beyond the sample's own solution is what sampling may have
    cost.

    Args:
        loss: of the sample's solution.
        others: losses, by the scores of the same sample, of the solutions of resampled problems.
        level: confidence, between 0 and 1.

    Raises:
        UsageError: the level is out of range, or there are no resamples.
    """
    if not 0 < level < 1:
        raise UsageError(f"level: {level} is out of range; use a confidence between 0 and 1")
    if not others:
        raise UsageError("others: there are none; solve one resampled problem or more")
    lost = np.maximum(np.array(others, dtype=np.float64) - loss, 0.0)
    scale = max(loss, float(np.finfo(np.float64).tiny))
    return Regret(float(np.quantile(lost, level)) / scale, float(lost.mean()) / scale)
