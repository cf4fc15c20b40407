"""The integer program of a budget, or the pins that it cannot be met with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mezzotint.errors import InfeasibleBudgetError
from mezzotint.plan import Choice
from mezzotint.recipes.auto.candidates import quantized_share
from mezzotint.recipes.auto.options import Auto
from mezzotint.recipes.auto.pinned import with_pins
from mezzotint.recipes.auto.program import IntegerProgram, integer_program
from mezzotint.recipes.auto.sensitivity import Candidates
from mezzotint.recipes.blamed_pins import naming_pins
from mezzotint.recipes.latency import Deadline
from mezzotint.recipes.restrictions import Restrictions
from mezzotint.recipes.study import Study


def posed(
    study: Study,
    options: Auto,
    candidates: Candidates,
    formats: Sequence[Choice],
    timed: Deadline | None,
) -> IntegerProgram:
    """Costs of all candidates, and the limits that the study's budget sets.

    Args:
        study: its job has the budget.
        options: of the recipe.
        candidates: of every layer.
        formats: between which layers without a pin choose.
        timed: the limit on latency; None for none.

    Raises:
        InfeasibleBudgetError: nothing keeps to all limits; names the nearest feasible, and pins
            that are to blame.
    """
    share = quantized_share(study.job.budget, options)
    try:
        return integer_program(study, candidates, share, timed)
    except InfeasibleBudgetError as cause:

        def pose(asked: Restrictions) -> None:
            other = replace(study, restrictions=asked)
            pinned = with_pins(other, other.structured(formats), formats)
            integer_program(other, pinned, share, timed)

        raise naming_pins(cause, study, pose) from cause
