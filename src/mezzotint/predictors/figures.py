"""Figures that judge an order of targets by scores; of both, higher is better."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from mezzotint.predictors.dataset import FloatArray
from mezzotint.predictors.target import TOP

#: Grades of NDCG, and how many of the best places it looks at.
GRADES, PLACES = 5.0, 10


def spearman(scores: FloatArray, targets: FloatArray) -> float:
    """Rank correlation of two vectors [n]; 0 where either has no order."""
    return _correlation(rankdata(scores), rankdata(targets))


def partial_spearman(scores: FloatArray, targets: FloatArray, given: FloatArray) -> float:
    """Rank correlation of scores and targets that a third vector [n] does not explain.

    It is the correlation of what is left of both ranks when their linear dependence on the third
    one's ranks is taken off; 0 where nothing is left of either.
    """
    ranks = [rankdata(each) for each in (scores, targets, given)]
    left = [_residual(each, ranks[2]) for each in ranks[:2]]
    return _correlation(left[0], left[1])


def ndcg(scores: FloatArray, targets: FloatArray) -> float:
    """NDCG of the ten places that scores put first, with gains 2^grade - 1; 1 is the best order.

    Args:
        scores: float64 [n].
        targets: float64 [n], on the scale from 0 to 50, which is cut into grades of 0 to 5. Where
            all grades are 0, every order is the best one.
    """
    gains = np.exp2(np.clip(targets * (GRADES / TOP), 0, GRADES)) - 1
    discounts = 1 / np.log2(np.arange(2, PLACES + 2))

    def total(order: np.ndarray[tuple[int], np.dtype[np.intp]]) -> float:
        best = gains[order][:PLACES]
        return float(best @ discounts[: len(best)])

    ideal = total(np.argsort(-gains, kind="stable"))
    return total(np.argsort(-scores, kind="stable")) / ideal if ideal > 0 else 1.0


def regret(scores: FloatArray, targets: FloatArray, bits: FloatArray, within: float) -> float:
    """Loss from taking the configuration of the highest score among those of like bits.

    Each configuration in turn is the middle of a range of bits; what the choice within the range
    loses against the best one there is averaged over all ranges of two or more.

    Args:
        scores: float64 [n].
        targets: float64 [n].
        bits: float64 [n].
        within: half width of a range, in bits.

    Returns:
        0 or more, in the units of the targets; 0 where no two have like bits.
    """
    lost = []
    for middle in bits:
        near = np.flatnonzero(np.abs(bits - middle) <= within)
        if len(near) > 1:
            taken = near[scores[near].argmax()]
            lost.append(float(targets[near].max() - targets[taken]))
    return float(np.mean(lost)) if lost else 0.0


def _residual(values: FloatArray, given: FloatArray) -> FloatArray:
    """Values less their regression on another vector."""
    centered: FloatArray = values - values.mean()
    other = given - given.mean()
    energy = float(other @ other)
    if not energy:
        return centered
    left: FloatArray = centered - other * (float(centered @ other) / energy)
    # Ranks are halves of whole numbers: what is smaller than this was rounding.
    return np.where(np.abs(left) < 1e-9 * len(values), np.zeros_like(left), left)


def _correlation(first: FloatArray, second: FloatArray) -> float:
    first, second = first - first.mean(), second - second.mean()
    norm = float(np.sqrt((first @ first) * (second @ second)))
    return float(first @ second) / norm if norm else 0.0
