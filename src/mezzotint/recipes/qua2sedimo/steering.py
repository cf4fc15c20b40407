"""Steering of the stored bits by λ, the weight that they have in the target."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from mezzotint.errors import InfeasibleBudgetError
from mezzotint.recipes.qua2sedimo.byte_window import ByteWindow
from mezzotint.recipes.search_space import Rows, SearchSpace

FACTOR = 2.0
"""λ grows and shrinks by this factor until the budget lies between two values."""

TRAININGS = 8
"""Values of λ that are tried: each is a training of its own."""


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
        window: the search ends where a configuration is in it, or else with the largest below.
        best: λ → the configuration of the best scores under it.
        first: λ to begin with, above 0.
        trainings: values of λ at the most.

    Raises:
        InfeasibleBudgetError: every configuration exceeds the budget; names the smallest.
    """
    low, high, bit_weight = 0.0, math.inf, first
    found: Steered | None = None
    smallest, most = math.inf, -1
    for _ in range(trainings):
        configuration = best(bit_weight)
        stored = int(space.stored(configuration))
        smallest = min(smallest, stored)
        if most < stored <= window.most:
            found, most = Steered(configuration, bit_weight), stored
        if window.holds(stored):
            break
        if stored > window.most:
            low = bit_weight
        else:
            high = bit_weight
        bit_weight = _next(low, high)
    if found is None:
        bits = smallest * 8 / int(space.sizes.sum())
        raise InfeasibleBudgetError(
            f"no λ up to {low:.4g} brings the configuration of the best scores down to the budget: "
            f"it stores {bits:.4g} bits per weight or more; ask for more bits, or use level "
            "'program', which keeps to any budget that these formats can meet"
        )
    return found


def _next(low: float, high: float) -> float:
    if math.isinf(high):
        return low * FACTOR
    return high / FACTOR if low == 0 else math.sqrt(low * high)
