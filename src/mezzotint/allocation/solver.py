"""The best choice within the limits, with its proof."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mezzotint.allocation.infeasible import beyond, unattainable
from mezzotint.allocation.knapsack import within_one_limit
from mezzotint.allocation.program import branch, closest
from mezzotint.allocation.table import Found, OneSidedLimit, Selection, Table, sides_of, tabulate
from mezzotint.allocation.values import Limit, Problem, Solution
from mezzotint.errors import BudgetError, UsageError


@dataclass(frozen=True)
class Effort:
    """Bounds on the effort where the optimum cannot be proven at once."""

    gap: float
    time_limit: float | None

    def __post_init__(self) -> None:
        if not self.gap >= 0:
            raise UsageError(f"gap: is {self.gap}; give a fraction, zero or more")
        if self.time_limit is not None and not self.time_limit > 0:
            raise UsageError(f"time_limit: is {self.time_limit}; give seconds above zero, or None")


def solve(
    problem: Problem,
    limits: Sequence[Limit] = (),
    *,
    gap: float = 1e-8,
    time_limit: float | None = 10.0,
) -> Solution:
    """Choose one option per layer so that the total score is largest within all limits.

    The limits are kept in exact arithmetic on the numbers given, never within a tolerance:
    `math.fsum` of the chosen costs is at most the maximum. Equal input gives equal output, also
    among ties, unless the time limit cuts in.

    One limit is solved by dynamic programming, to a gap of 0 unless the scores follow the costs
    closely. So are several, or a two-sided one, if the optimum under one side alone keeps to the
    others too. What is left goes to HiGHS, which works to a gap of about 1e-9.

    Args:
        problem: The layers and their options.
        limits: Bounds on resources; none gives every layer its best score.
        gap: Where the optimum is hard to prove, the `Solution.gap` to stop at.
        time_limit: Seconds after which the best choice found so far is returned, with its gap; if
            there is none, as long again is spent on finding any. `None` to search until the gap
            is proven.

    Raises:
        InfeasibleBudgetError: No choice keeps to the limits; names the nearest that is feasible.
        BudgetError: A limit names an unknown resource, or time ran out before any choice was
            found.
        UsageError: The scores span more than float64 can hold, or `gap` or `time_limit` is out of
            its domain.
    """
    start = time.perf_counter()
    table = tabulate(problem)
    found = minimise(table, sides_of(problem, limits), Effort(gap, time_limit), limits)
    return solution(problem, table, found, time.perf_counter() - start)


def minimise(
    table: Table, sides: Sequence[OneSidedLimit], effort: Effort, limits: Sequence[Limit] = ()
) -> Found:
    """Minimise the loss within all sides; `limits` are what an error says was asked for."""
    for side in sides:
        if side.least() > side.bound:
            raise beyond(side, sides, limits)
    if not sides:
        return Found(table.loss.argmin(axis=1), 0.0)
    best: Selection | None = None
    lower = 0.0
    for side in sides:
        # Under one side alone more is allowed, so its bound holds under all of them, and if its
        # optimum keeps to the others it is theirs too.
        found = within_one_limit(table, side, effort.gap)
        lower = max(lower, found.lower)
        if all(other.allows(found.choice) for other in sides):
            best = _better(table, best, found.choice)
        if best is not None and excess(table, best, lower) <= effort.gap * table.total_loss(best):
            return Found(best, lower)
    branched = branch(table, sides, effort.gap, effort.time_limit)
    best = _better(table, best, branched.choice)
    if best is not None:
        return Found(best, max(lower, branched.lower))
    nearest = closest(table, sides, effort.time_limit)
    if math.isinf(branched.lower):
        raise unattainable(nearest, sides, limits)
    if nearest is not None and all(side.allows(nearest) for side in sides):
        return Found(nearest, max(lower, branched.lower))
    raise BudgetError(
        f"no choice within the limits was found in {effort.time_limit} seconds, nor was it proven "
        "that there is none; allow more time, or widen the limits"
    )


def excess(table: Table, choice: Selection, lower: float) -> float:
    """Loss that a choice may have beyond the optimum's."""
    return max(table.total_loss(choice) - lower, 0.0)


def _better(table: Table, one: Selection | None, other: Selection | None) -> Selection | None:
    if one is None or other is None:
        return other if one is None else one
    return other if table.total_loss(other) < table.total_loss(one) else one


def solution(problem: Problem, table: Table, found: Found, seconds: float) -> Solution:
    """Dress a choice up with its keys, totals and proof."""
    options = [layer[index] for layer, index in zip(table.options, found.choice, strict=True)]
    common = set[str].intersection(
        *({*option.costs} for layer in table.options for option in layer)
    )
    used: Mapping[str, float] = {
        resource: math.fsum(float(option.costs[resource]) for option in options)
        for resource in options[0].costs
        if resource in common
    }
    score = math.fsum(option.score for option in options)
    unproven = excess(table, *found)
    return Solution(
        chosen={name: option.key for name, option in zip(problem.layers, options, strict=True)},
        score=score,
        bound=score + unproven,
        gap=unproven / table.total_loss(found.choice) if unproven else 0.0,
        used=used,
        seconds=seconds,
    )
