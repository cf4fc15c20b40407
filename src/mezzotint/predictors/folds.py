"""Folds of labels: parts that are fitted, that stop training, and that judge."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mezzotint.errors import PredictorError
from mezzotint.predictors.dataset import IntArray

#: Different configurations that each fold needs at least: fewer have no order to speak of.
LEAST = 4

#: Share of what is not tested that stops training, and weighs its hops.
VALIDATION = 0.15


@dataclass(frozen=True, eq=False)
class Fold:
    """Rows of labels, in three parts without a common configuration.

    Attributes:
        train: int64, fitted.
        validation: int64, for whatever is chosen after fitting.
        test: int64, looked at by nothing but figures of the finished model.
    """

    train: IntArray
    validation: IntArray
    test: IntArray

    @property
    def known(self) -> IntArray:
        """Rows of all labels that may be learned from."""
        return np.sort(np.concatenate([self.train, self.validation]))


def folds_of(configurations: IntArray, count: int, seed: int) -> tuple[Fold, ...]:
    """Divide labels at random; equal configurations fall into the same part.

    Args:
        configurations: int64 [n, weight nodes].
        count: of folds; each label is in the test part of one of them.
        seed: of the division.

    Raises:
        PredictorError: there are too few different configurations; says how many are missing.
    """
    _, group = np.unique(configurations, axis=0, return_inverse=True)
    group = group.reshape(-1)
    groups = int(group.max(initial=-1)) + 1
    missing = count * LEAST - groups
    if missing > 0:
        raise PredictorError(
            f"labels: {groups} different configurations are too few for {count} folds of "
            f"{LEAST}; {missing} are missing"
        )
    order = np.random.default_rng(seed).permutation(groups)
    parts = np.array_split(order, count)
    # Each fold's validation part is of the part that comes next: no two folds share it.
    return tuple(
        _fold(group, part, np.concatenate([*parts[index + 1 :], *parts[:index]]))
        for index, part in enumerate(parts)
    )


def _fold(group: IntArray, test: IntArray, others: IntArray) -> Fold:
    """The fold of these groups."""
    size = max(2, round(len(others) * VALIDATION))
    sets = (others[size:], others[:size], test)
    return Fold(*(np.flatnonzero(np.isin(group, each)) for each in sets))
