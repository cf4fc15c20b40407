"""Confidence intervals by resampling."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from mezzotint.errors import UsageError


@dataclass(frozen=True)
class Interval:
    """A statistic and its confidence interval; the bounds are NaN where one value was given."""

    value: float
    low: float
    high: float


def bootstrap_interval(
    values: npt.ArrayLike,
    statistic: Callable[..., Any] = np.mean,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """The statistic of `values` with its bootstrap confidence interval.

    Expanded percentile interval: the percentiles of the resampled statistic, taken so far out that
    the interval of a mean is as wide as Student's t makes it. Plain percentiles are too narrow for
    small samples (Hesterberg, "What Teachers Should Know About the Bootstrap", 2015).

    Args:
        values: [n], independent samples.
        statistic: a NumPy reduction that takes `axis`, such as `np.mean` or `np.median`.
        level: confidence, between 0 and 1.
        resamples: how many samples of size n to draw from `values`, with replacement.
        seed: of the drawing; the same values and seed give the same interval.

    Raises:
        UsageError: no values, a value that is not finite, or a level or count out of range.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or not sample.size:
        raise UsageError(f"values: has shape {list(sample.shape)}; give a vector of at least one")
    if not np.isfinite(sample).all():
        raise UsageError("values: holds NaN or infinite entries; leave them out or bound them")
    if not 0 < level < 1:
        raise UsageError(f"level: {level} is out of range; use a confidence between 0 and 1")
    if resamples < 1:
        raise UsageError(f"resamples: {resamples} is too few; use 1 or more")
    count, value = len(sample), float(statistic(sample, axis=0))
    if count == 1:
        return Interval(value, math.nan, math.nan)
    rng = np.random.default_rng(seed)
    # Row by row, so that memory does not grow with n × resamples.
    resampled = [
        statistic(sample[rng.integers(count, size=count)], axis=0) for _ in range(resamples)
    ]
    quantile = stats.t.ppf((1 - level) / 2, count - 1) * math.sqrt(count / (count - 1))
    tail = float(stats.norm.cdf(quantile))
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Interval(value, float(low), float(high))


def paired_difference_interval(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Mean of `a - b` with its bootstrap interval; entry i of both stems from the same sample.

    An interval that excludes 0 tells two plans apart even where their own intervals overlap.

    Raises:
        UsageError: the shapes differ; further as for `bootstrap_interval`.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape:
        raise UsageError(
            f"a and b differ in shape, {list(first.shape)} and {list(second.shape)}; "
            "give one value each per pair"
        )
    return bootstrap_interval(first - second, level=level, resamples=resamples, seed=seed)
