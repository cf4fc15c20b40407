"""Steering of the stored bits by λ, the weight that they have in the target."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from mezzotint.errors import InfeasibleBudgetError
from mezzotint.recipes.qua2sedimo.byte_window import ByteWindow
from mezzotint.recipes.search_space import Rows, SearchSpace

FACTOR = 2**0.5
"""Ratio of neighbouring values of λ: budgets and levels share what was fitted for each."""

TRAININGS = 6
"""Values of λ that are tried where nothing else is said: each is a training of its own."""

STEP = 2
"""Values by which λ changes at first; the changes double until the budget lies between two."""


@dataclass(frozen=True, eq=False)
class Steered:
    """A configuration within the budget, by scores alone.

    Attributes:
        configuration: format indices [weights].
        parameter: λ that led to it.
    """

    configuration: Rows
    parameter: float


def steered(
    space: SearchSpace,
    window: ByteWindow,
    best: Callable[[float], Rows],
    first: float,
    trainings: int = TRAININGS,
) -> Steered:
    """Find λ so that the configuration of the best scores has the bits asked for.

    Args:
        space: tells the bytes of a configuration.
        window: the search ends where a configuration is in it, or between neighbouring values of λ
            with the larger one below.
        best: λ → the configuration of the best scores under it.
        first: λ to begin with, above 0; all others are this times a power of `FACTOR`.
        trainings: values of λ at the most.

    Raises:
        InfeasibleBudgetError: every configuration exceeds the budget; names the smallest.
    """
    low: int | None = None
    high: int | None = None
    place, smallest, most = 0, math.inf, -1
    found: Steered | None = None
    for _ in range(trainings):
        parameter = first * FACTOR**place
        configuration = best(parameter)
        stored = int(space.stored(configuration))
        smallest = min(smallest, stored)
        if most < stored <= window.most:
            found, most = Steered(configuration, parameter), stored
        low, high = (place, high) if stored > window.most else (low, place)
        if window.holds(stored) or (low is not None and high is not None and high - low == 1):
            break
        place = _next(low, high, place)
    if found is None:
        bits = smallest * 8 / int(space.sizes.sum())
        raise InfeasibleBudgetError(
            f"no λ up to {parameter:.4g} brings the configuration of the best scores down to the "
            f"budget: it stores {bits:.4g} bits per weight or more; ask for more bits, or use "
            "level 'program', which keeps to any budget that these formats can meet"
        )
    return found


def _next(low: int | None, high: int | None, place: int) -> int:
    """The next value, above `low` and below `high`, where `place` was the last."""
    if low is not None and high is not None:
        return (low + high) // 2
    further = max(abs(place), STEP)
    return place + further if high is None else place - further
