"""The Pareto front between the total score and the use of one resource."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from mezzotint.allocation.solver import Effort, minimise, solution
from mezzotint.allocation.table import Found, OneSidedLimit, Table, sides_of, tabulate, units_of
from mezzotint.allocation.values import Limit, Problem, Solution
from mezzotint.errors import InfeasibleBudgetError, UsageError


def pareto_front(
    problem: Problem,
    resource: str,
    limits: Sequence[Limit] = (),
    *,
    points: int | None = 33,
    gap: float = 1e-8,
    time_limit: float | None = 10.0,
) -> tuple[Solution, ...]:
    """The choices that no other beats in score without using more of the resource.

    A point of the front is the best score within some budget, at the least use that attains it.
    With n layers of k options there can be up to k**n of them, so two forms are offered:

    - a number of `points`: the front at that many budgets, evenly spaced from the least
      attainable use to that of the best score, both included. Every solution is a point of the
      whole front, not of its convex hull only; budgets with the same optimum give one.
    - `None`: the whole front, one solve per point. For few layers, or costs that are multiples
      of something coarse; of 1,000 layers with costs in bytes it will not end.

    Args:
        problem: The layers and their options.
        resource: The resource traded against score.
        limits: Bounds that every point keeps to, on this or other resources.
        points: How many budgets, at least 2, or `None` for the whole front.
        gap: As in `solve`, for each point.
        time_limit: As in `solve`, for each solve.

    Returns:
        Solutions in the order of use, and so of score, both strictly increasing.

    Raises:
        The errors of `solve`, and UsageError for fewer than 2 points.
    """
    if points is not None and points < 2:
        raise UsageError(f"points: is {points}; give at least 2, or None for the whole front")
    units, unit = units_of(problem, resource)
    budget = OneSidedLimit(resource, 1, unit, units, Fraction(units.max(axis=1).sum()))
    sides = sides_of(problem, limits)
    tracer = _Tracer(
        tabulate(problem), budget, tuple(sides), tuple(limits), Effort(gap, time_limit)
    )
    top = tracer.within(budget.bound)
    found = tracer.downwards(top) if points is None else tracer.spaced(top, points)
    timed = [*_timed(found)]
    return tuple(
        solution(problem, tracer.table, point, seconds) for point, seconds in reversed(timed)
    )


def _timed(points: Iterator[Found]) -> Iterator[tuple[Found, float]]:
    start = time.perf_counter()
    for point in points:
        yield point, time.perf_counter() - start
        start = time.perf_counter()


@dataclass(frozen=True)
class _Tracer:
    """Finds points of the front, all within the same `sides`."""

    table: Table
    budget: OneSidedLimit
    sides: tuple[OneSidedLimit, ...]
    limits: tuple[Limit, ...]
    effort: Effort

    def within(self, bound: int) -> Found:
        """The best score within a budget, at whatever use the solver finds it."""
        return minimise(
            self.table,
            [*self.sides, replace(self.budget, limit=Fraction(bound))],
            self.effort,
            self.limits,
        )

    def below(self, found: Found) -> Found | None:
        """The best score with less use, or `None` if there is no using less."""
        try:
            return self.within(self.use(found) - 1)
        except InfeasibleBudgetError:
            return None

    def use(self, found: Found) -> int:
        return self.budget.total(found.choice)

    def downwards(self, found: Found) -> Iterator[Found]:
        """Every point of the front from this optimum on, in the order of falling use.

        An optimum is on the front if less use means a lower score; otherwise what attains the
        same score takes its place.
        """
        current: Found | None = found
        while current is not None:
            cheaper = self.below(current)
            if cheaper is None or self._score(cheaper) < self._score(current):
                yield current
            current = cheaper

    def spaced(self, top: Found, points: int) -> Iterator[Found]:
        """The points of the front at evenly spaced budgets, in the order of falling use."""
        point = self.on_front(top)
        yield point
        highest, lowest = self.use(point), self._least_use()
        for index in range(points - 2, -1, -1):
            bound = lowest + (highest - lowest) * index // (points - 1)
            if bound < self.use(point):
                point = self.on_front(self.within(bound))
                yield point

    def on_front(self, found: Found) -> Found:
        """The point of the front that has the score of this optimum."""
        return next(self.downwards(found))

    def _score(self, found: Found) -> float:
        return self.table.total_score(found.choice)

    def _least_use(self) -> int:
        if not self.sides:
            return self.budget.least()
        weights = self.budget.weights
        above = weights - weights.min(axis=1, keepdims=True)
        loss = np.asarray(above / max(int(above.max()), 1), dtype=np.float64)
        cost = replace(self.table, loss=loss)
        return self.use(minimise(cost, self.sides, self.effort, self.limits))
