"""Judgement of predictors on labels that they had not seen, and comparisons of two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from mezzotint.errors import UsageError
from mezzotint.evaluation import Interval, bootstrap_interval, paired_difference_interval
from mezzotint.predictors.figures import ndcg, partial_spearman, regret, spearman
from mezzotint.predictors.predictor import Evidence
from mezzotint.predictors.target import Scale

#: Half width of the range of stored bits within which a choice is judged.
LIKE_BITS = 0.05


@dataclass(frozen=True)
class FoldFigures:
    """Figures of the order that a model gave to the test part of its fold.

    Attributes:
        spearman: rank correlation of predictions and labels.
        partial: the same, given stored bits.
        ndcg: of the ten best places.
        regret: in the target's units, among configurations within 0.05 bits; the lower, the better.
    """

    spearman: float
    partial: float
    ndcg: float
    regret: float


def judged(evidence: Evidence) -> tuple[FoldFigures, ...]:
    """Figures of each fold."""
    return tuple(_fold_figures(evidence, int(fold)) for fold in np.unique(evidence.fold))


def _fold_figures(evidence: Evidence, fold: int) -> FoldFigures:
    test = evidence.fold == fold
    predicted, targets, bits = (
        each[test] for each in (evidence.predicted, evidence.targets, evidence.bits)
    )
    scaled = Scale.fit(evidence.targets[~test]).scaled(targets)
    return FoldFigures(
        spearman(predicted, targets),
        partial_spearman(predicted, targets, bits),
        ndcg(predicted, scaled),
        regret(predicted, targets, bits, LIKE_BITS),
    )


def averages(figures: Sequence[FoldFigures], seed: int = 0) -> dict[str, Interval]:
    """Mean of each figure over folds, with its bootstrap interval, by the figure's name."""
    return {
        name: bootstrap_interval(values, seed=seed) for name, values in _by_name(figures).items()
    }


def differences(
    first: Sequence[FoldFigures], second: Sequence[FoldFigures], seed: int = 0
) -> dict[str, Interval]:
    """Mean of `first - second` of each figure over folds, with its paired bootstrap interval.

    Raises:
        UsageError: the two have not the same number of folds.
    """
    if len(first) != len(second):
        raise UsageError(
            f"figures of {len(first)} and {len(second)} folds are no pairs; use the same folds"
        )
    others = _by_name(second)
    return {
        name: paired_difference_interval(values, others[name], seed=seed)
        for name, values in _by_name(first).items()
    }


def _by_name(figures: Sequence[FoldFigures]) -> dict[str, list[float]]:
    return {each.name: [getattr(f, each.name) for f in figures] for each in fields(FoldFigures)}
