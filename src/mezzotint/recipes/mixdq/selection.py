"""The candidate whose images are nearest to the floating pipeline's (MixDQ, section 4.3)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from mezzotint.errors import CalibrationError
from mezzotint.measuring import PlanChange
from mezzotint.plan import Choice, Plan
from mezzotint.recipes.mixdq.method import Method

Choices: TypeAlias = Mapping[str, Choice]


def image_errors(
    method: Method, candidates: Sequence[Choices], label: str = "Comparing"
) -> list[float]:
    """Mean squared difference of the images under each candidate's choices, journaled.

    The images are those of the first `selection_prompts` prompts, in [0, 1]; where they hold NaN
    or infinity, the error is infinite.
    """
    changes = [PlanChange(Plan(choices, encoding=method.encoding)) for choices in candidates]
    return method.measuring.losses(changes, method.image_error, label)


def nearest(method: Method, candidates: Sequence[Choices]) -> tuple[int, list[float]]:
    """Index of the candidate of the least image error, and all errors; one alone is not run.

    Raises:
        CalibrationError: no candidate makes finite images.
    """
    if len(candidates) == 1:
        return 0, []
    errors = image_errors(method, candidates)
    refuse_ruined(method, errors)
    return errors.index(min(errors)), errors


def refuse_ruined(method: Method, errors: Sequence[float]) -> None:
    """Raise CalibrationError where no image error is finite."""
    if math.isinf(min(errors)):
        raise CalibrationError(
            f"{method.study.job.model}: the images hold NaN or infinity under each of "
            f"{len(errors)} plans; allow wider candidates, or a wider dtype"
        )
