"""Pins and exclusions that a budget cannot be met with."""

from __future__ import annotations

from collections.abc import Callable

from mezzotint.errors import InfeasibleBudgetError
from mezzotint.recipes.restrictions import Restrictions
from mezzotint.recipes.study import Study


def naming_pins(
    cause: InfeasibleBudgetError,
    study: Study,
    pose: Callable[[Restrictions], object],
) -> InfeasibleBudgetError:
    """The error of a budget that cannot be met, with the pins and exclusions that are to blame.

    Args:
        cause: says what cannot be met.
        study: with restrictions.
        pose: raises InfeasibleBudgetError where it cannot be met under other restrictions either.
    """

    def feasible(restrictions: Restrictions) -> bool:
        try:
            pose(restrictions)
        except InfeasibleBudgetError:
            return False
        return True

    asked = study.restrictions
    alone = [pin.text for pin in asked.pins if feasible(asked.without(pin))]
    if alone:
        return InfeasibleBudgetError(f"{cause}; without pin {' or '.join(map(repr, alone))} it can")
    if asked.pins and feasible(Restrictions(exclude=asked.exclude)):
        pins = ", ".join(repr(pin.text) for pin in asked.pins)
        return InfeasibleBudgetError(f"{cause}; without the pins ({pins}) it can")
    if asked.exclude and study.job.budget.size is not None:
        left = {*study.names} - {layer.name for layer in study.layers}
        weights = (study.job.denoiser.get_submodule(name).get_parameter("weight") for name in left)
        count = sum(weight.numel() for weight in weights)
        return InfeasibleBudgetError(f"{cause}; {count:,} weights of excluded layers among these")
    return cause
