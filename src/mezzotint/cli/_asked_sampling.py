"""Images that a command is asked to make, or to calibrate on."""

# ruff: noqa: PLC0415  (verbs import what they need when they run)

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mezzotint.cli._option_groups import AS_USUAL, Calling

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from mezzotint.models import Sampling
    from mezzotint.plan import Plan


def sampling_of(
    pipe: DiffusionPipeline,
    prompts: Path | None,
    *,
    seed: int,
    count: int | None = None,
    calling: Calling = AS_USUAL,
) -> Sampling:
    """Prompts of a file or else of the model, repeated or cut to `count` where one is given.

    Raises:
        UsageError: the file is missing or empty, a number is out of range, or an argument of the
            call is wrong.
    """
    from mezzotint.models import Sampling, read_prompts
    from mezzotint.recipes.default_prompts import CALIBRATION_COUNT, default_sampling

    if prompts is None:
        usual = CALIBRATION_COUNT if count is None else count
        found = default_sampling(pipe, usual, call_kwargs=calling.kwargs(usual, repeat=True))
    else:
        texts = read_prompts(prompts)
        found = Sampling(prompts=texts, call_kwargs=calling.kwargs(len(texts), repeat=False))
        found = found if count is None else found.repeated(count)
    return calling.on(replace(found, seed=seed))


def asked_sampling(
    pipe: DiffusionPipeline,
    plan: Plan,
    prompts: Path | None,
    seed: int | None,
    calling: Calling,
) -> Sampling | None:
    """The sampling that a plan is to be calibrated on anew; None where it is to be done as it says.

    With arguments of the call alone, the plan's prompts and seed are taken: it holds no pictures,
    and has to be given them again.

    Raises:
        UsageError: as `sampling_of`.
    """
    if prompts is None and seed is None and not calling.given:
        return None
    known = None if plan.calibration is None else plan.calibration.sampling
    if prompts is None and seed is None and known is not None:
        return calling.on(known.with_kwargs(calling.kwargs(len(known), repeat=True)))
    return sampling_of(pipe, prompts, seed=seed or 0, calling=calling)
