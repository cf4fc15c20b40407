"""Which candidate's images are nearest to the floating pipeline's (MixDQ, section 4.3)."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from diffusers import DiffusionPipeline

from mezzotint._progress import track
from mezzotint.errors import CalibrationError
from mezzotint.models import find_denoiser
from mezzotint.plan import Choice, Plan
from mezzotint.recipes.mixdq.lab import Lab
from mezzotint.runtime import packed_copy
from mezzotint.sensitivity import float_images

Choices: TypeAlias = Mapping[str, Choice]


def image_error(lab: Lab, choices: Choices) -> float:
    """Mean squared difference of the images under `choices`, journaled.

    The images are those of the first `selection_prompts` prompts, in [0, 1]; where they hold NaN
    or infinity, the error is infinite.
    """
    count = min(lab.options.selection_prompts, len(lab.job.sampling.prompts))
    key = f"image error | {count} prompts | {_digest(choices)}"
    if key not in lab.journal:
        sampling = replace(lab.job.sampling, prompts=lab.job.sampling.prompts[:count])
        images = float_images(_packed(lab, choices), sampling)
        error = float((images - lab.images.images[:count]).square().mean())
        lab.journal.add(key, {"mse": error if math.isfinite(error) else None})
    found = lab.journal[key]["mse"]
    return math.inf if found is None else float(found)


def nearest(lab: Lab, candidates: Sequence[Choices]) -> tuple[int, list[float]]:
    """Index of the candidate of the least image error, and all errors; one alone is not run.

    Raises:
        CalibrationError: no candidate makes finite images.
    """
    if len(candidates) == 1:
        return 0, []
    errors = [image_error(lab, each) for each in track(candidates, "Comparing", len(candidates))]
    refuse_ruined(lab, errors)
    return errors.index(min(errors)), errors


def refuse_ruined(lab: Lab, errors: Sequence[float]) -> None:
    """Raise CalibrationError where no image error is finite."""
    if math.isinf(min(errors)):
        raise CalibrationError(
            f"{lab.job.model}: the images hold NaN or infinity under each of {len(errors)} plans; "
            "allow wider candidates, or a wider dtype"
        )


def _packed(lab: Lab, choices: Choices) -> DiffusionPipeline:
    component, denoiser = find_denoiser(lab.job.pipe)
    pipe = copy.copy(lab.job.pipe)
    setattr(
        pipe,
        component,
        packed_copy(denoiser, Plan(choices, encoding=lab.encoding), lab.calibration),
    )
    return pipe


def _digest(choices: Choices) -> str:
    text = json.dumps({name: choice.to_dict() for name, choice in choices.items()})
    return hashlib.sha256(text.encode()).hexdigest()[:16]
