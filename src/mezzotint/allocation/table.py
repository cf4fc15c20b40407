"""A problem as arrays: losses in float64, costs in exact integers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mezzotint.allocation.values import Limit, Option, Problem
from mezzotint.errors import BudgetError, UsageError

Selection: TypeAlias = NDArray[np.intp]
"""The index of the chosen option of each layer, shape (layers,)."""

IntegerArray: TypeAlias = NDArray[Any]
"""Python integers in an object array: their sums never round, be they bytes or floats' units."""


@dataclass(frozen=True)
class Table:
    """The options of L layers, padded to the longest list K by repeating a layer's last option.

    A repeated option changes no optimum, and is never chosen over the one it repeats.

    Attributes:
        loss: What each option scores below the best of its layer, ≥ 0, shape (L, K).
    """

    options: tuple[tuple[Option, ...], ...]
    loss: NDArray[np.float64]

    def total_loss(self, choice: Selection) -> float:
        """Loss of one choice, correctly rounded."""
        return math.fsum(self.loss[np.arange(len(choice)), choice])

    def total_score(self, choice: Selection) -> float:
        """Score of one choice, correctly rounded."""
        return math.fsum(
            layer[index].score for layer, index in zip(self.options, choice, strict=True)
        )


class Found(NamedTuple):
    """A selection within the limits, and a proven lower bound on the loss of all such."""

    choice: Selection
    lower: float


@dataclass(frozen=True)
class OneSidedLimit:
    """One side of a limit: the sum of the chosen `weights` is at most `limit`.

    Attributes:
        resource: The limited resource.
        sign: +1 for a maximum, -1 for a minimum (whose weights are negated costs).
        unit: What one unit is worth, so that `sign * weight * unit` is the exact cost.
        weights: shape (L, K).
        limit: What was asked for, in units; `bound` is the largest sum of weights within it.
    """

    resource: str
    sign: int
    unit: Fraction
    weights: IntegerArray
    limit: Fraction

    @property
    def bound(self) -> int:
        """The largest allowed sum of weights."""
        return math.floor(self.limit)

    def total(self, choice: Selection) -> int:
        """Sum of the chosen weights, exactly."""
        return int(self.weights[np.arange(len(choice)), choice].sum())

    def allows(self, choice: Selection) -> bool:
        """True where this choice keeps to the bound, exactly."""
        return self.total(choice) <= self.bound

    def least(self) -> int:
        """The smallest attainable sum of weights."""
        return int(self.weights.min(axis=1).sum())

    def most(self) -> int:
        """The largest attainable sum of weights."""
        return int(self.weights.max(axis=1).sum())


def tabulate(problem: Problem) -> Table:
    """Arrange the options of a problem; raises UsageError if its scores overflow float64."""
    options = tuple(problem.layers.values())
    scores = np.array(_padded([[option.score for option in layer] for layer in options]))
    with np.errstate(over="ignore"):
        loss = scores.max(axis=1, keepdims=True) - scores
        span = float(loss.max(axis=1).sum())
    if not math.isfinite(span):
        raise UsageError("the scores differ by more than a float can hold; scale them down")
    return Table(options, loss)


def sides_of(problem: Problem, limits: Sequence[Limit]) -> list[OneSidedLimit]:
    """Write limits as one-sided bounds; raises BudgetError for a resource some option lacks."""
    sides = []
    for limit in limits:
        weights, unit = units_of(problem, limit.resource)
        sides.append(
            OneSidedLimit(limit.resource, 1, unit, weights, Fraction(limit.maximum) / unit)
        )
        if limit.minimum is not None:
            minimum = Fraction(limit.minimum) / unit
            sides.append(OneSidedLimit(limit.resource, -1, unit, -weights, -minimum))
    return sides


def units_of(problem: Problem, resource: str) -> tuple[IntegerArray, Fraction]:
    """Costs of one resource as whole multiples, shape (L, K), of the largest common unit."""
    costs = []
    for name, options in problem.layers.items():
        for option in options:
            if resource not in option.costs:
                known = ", ".join(sorted(option.costs)) or "none"
                raise BudgetError(
                    f"{resource!r}: layer {name!r}, option {option.key!r} has no such cost "
                    f"(it has: {known})"
                )
        costs.append([option.costs[resource].as_integer_ratio() for option in options])
    common = math.lcm(*{denominator for layer in costs for _, denominator in layer})
    units = [[above * (common // below) for above, below in layer] for layer in costs]
    divisor = math.gcd(*{unit for layer in units for unit in layer}) or 1
    array = np.array(_padded([[unit // divisor for unit in row] for row in units]), dtype=object)
    return array, Fraction(divisor, common)


def _padded(rows: list[list[Any]]) -> list[list[Any]]:
    width = max(map(len, rows))
    return [row + row[-1:] * (width - len(row)) for row in rows]
