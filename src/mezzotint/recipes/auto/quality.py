"""The fewest bytes whose plan, really run, keeps the signal to noise that is asked for.

Along the front of the program, predicted noise falls as bytes rise. Where it reaches the goal tells
which plan to measure first; how far the prediction was off tells the next, and so on, until a plan
that reaches the goal is within a percent of one that does not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from mezzotint._progress import announcer
from mezzotint.errors import InfeasibleBudgetError, UsageError
from mezzotint.measuring import Noise, decibels
from mezzotint.recipes.auto.allocation import Found, allocated
from mezzotint.recipes.auto.losses import Losses
from mezzotint.recipes.auto.program import IntegerProgram, chosen
from mezzotint.recipes.auto.search import Search
from mezzotint.recipes.costs import BYTES, floating_bytes

CLOSE = 0.01
"""Share of the bytes up to which fewer are not looked for."""

MOST_PLANS = 10
"""Plans that are measured at the most."""

_LEAST = 1e-30
_STEPS = 20


@dataclass(frozen=True)
class _Tried:
    """A plan that was measured.

    Attributes:
        search: that led to it.
        used: bytes of the layers' weights.
        measured: signal to noise of the plan really run, dB.
        predicted: by the losses, dB.
        losses: by which it was found.
    """

    search: Search
    used: int
    measured: float
    predicted: float
    losses: Losses = field(repr=False)


def reaching(search: Search, goal: float) -> tuple[Search, dict[str, object]]:
    """The search within the fewest bytes that reach a signal to noise, and how it was found.

    Args:
        search: whose limits hold as well.
        goal: dB, at the least.

    Raises:
        InfeasibleBudgetError: nothing within the limits reaches it; names the best that does.
        UsageError: the metric is another than noise.
    """
    if not isinstance(search.metric, Noise):
        raise UsageError("quality: is told by noise; leave metric out with it")
    best = _tried(search, allocated(search))
    if best.measured < goal:
        raise _unreachable(best, goal)
    count = 1
    low = sum(min(cost[BYTES] for cost in each.values()) for each in search.program.costs.values())
    last = best
    low -= 1
    while best.used - low > CLOSE * best.used and count < MOST_PLANS:
        most = _fewest(search.program, last.losses, goal + last.predicted - last.measured)
        if not low < most < best.used:
            most = (low + best.used) // 2
        within = replace(search, program=search.program.within(most))
        last = _tried(within, allocated(within))
        count += 1
        if last.measured >= goal:
            best = last
        else:
            low = most
    return best.search, {"sqnr_db": goal, "plans_measured": count}


def missed(measured: float | None, goal: float) -> str | None:
    """A line for people where the finished plan falls short of the goal after all."""
    if measured is None or measured >= goal:
        return None
    return (
        f"warning: the plan reaches {measured:.2f} dB, not the {goal:g} dB that were asked for: "
        "later stages, which are judged on half of the samples, lost some; ask for a bit more"
    )


def _tried(search: Search, found: Found) -> _Tried:
    (loss,) = search.clipped(found.clips).plan_losses([search.plan(found.choices)])
    tried = _Tried(
        search,
        search.program.used(found.choices, BYTES),
        decibels(max(loss, _LEAST)),
        decibels(max(found.losses.of_plan(found.choices), _LEAST)),
        found.losses,
    )
    tell = announcer()
    if tell is not None:
        tell(f"{_bytes(tried):,} bytes: {tried.measured:.2f} dB")
    return tried


def _bytes(tried: _Tried) -> int:
    study = tried.search.study
    return tried.used + floating_bytes(study.job.denoiser, study.layers)


def _fewest(program: IntegerProgram, losses: Losses, goal: float) -> int:
    """The fewest bytes of weights at which a plan is predicted to reach a signal to noise."""
    costs = [[cost[BYTES] for cost in each.values()] for each in program.costs.values()]
    low, high = sum(map(min, costs)), sum(map(max, costs))
    for _ in range(_STEPS):
        middle = (low + high) // 2
        try:
            found = chosen(program.within(middle).solve(losses))
        except InfeasibleBudgetError:
            low = middle
            continue
        reached = decibels(max(losses.of_plan(found), _LEAST)) >= goal
        low, high = (low, middle) if reached else (middle, high)
        if high - low <= CLOSE / 10 * high:
            break
    return high


def _unreachable(best: _Tried, goal: float) -> InfeasibleBudgetError:
    # Rounded down, so that asking for what is named will do.
    nearest = math.floor(best.measured * 100) / 100 if math.isfinite(best.measured) else 0.0
    budget = best.search.study.job.budget
    inputs = "" if budget.act_bits == 16 else ", or allow floating inputs (act_bits 16)"
    return InfeasibleBudgetError(
        f"quality {goal:g}dB cannot be reached: the best plan within all other limits has "
        f"{nearest:.2f} dB on {best.search.samples.shown}, with {_bytes(best):,} bytes of the "
        f"denoiser; ask for that or less{inputs}"
    )
