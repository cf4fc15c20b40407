"""Errors when no choice keeps to the limits: what was asked, and what could be had."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from mezzotint.allocation.table import OneSidedLimit, Selection
from mezzotint.allocation.values import Limit
from mezzotint.errors import InfeasibleBudgetError


def beyond(
    side: OneSidedLimit, sides: Sequence[OneSidedLimit], limits: Sequence[Limit]
) -> InfeasibleBudgetError:
    """The error for a side that even the layers' least weights exceed."""
    return InfeasibleBudgetError(
        f"{side.resource}: {_asked(side.resource, limits)}, but the layers can use only "
        f"{_range(side.resource, sides)}; the nearest feasible is {_nearest(side, side.least())}"
    )


def unattainable(
    nearest: Selection | None, sides: Sequence[OneSidedLimit], limits: Sequence[Limit]
) -> InfeasibleBudgetError:
    """The error for limits that can each be met on one side, but not all at once."""
    lines = []
    for resource in dict.fromkeys(side.resource for side in sides):
        side = next(side for side in sides if side.resource == resource)
        line = f"{resource}: {_asked(resource, limits)}, of {_range(resource, sides)}"
        if nearest is not None:
            line += f"; the nearest feasible is {_nearest(side, side.total(nearest))}"
        lines.append(line)
    together = " (all of these together)" if len(lines) > 1 else ""
    return InfeasibleBudgetError(
        "no choice of options keeps to the limits: " + ", and ".join(lines) + together
    )


def _asked(resource: str, limits: Sequence[Limit]) -> str:
    return " and ".join(f"{limit} asked" for limit in limits if limit.resource == resource)


def _range(resource: str, sides: Sequence[OneSidedLimit]) -> str:
    side = next(side for side in sides if side.resource == resource)
    ends = sorted(side.sign * side.unit * total for total in (side.least(), side.most()))
    return f"{float(ends[0])!r} to {float(ends[1])!r}"


def _nearest(side: OneSidedLimit, total: int) -> str:
    """The cost of a total as a float that allows it: rounded away from what it limits."""
    cost = side.sign * side.unit * total
    value = float(cost)
    if side.sign * (Fraction(value) - cost) < 0:
        value = math.nextafter(value, side.sign * math.inf)
    return repr(value)
