"""Running a pipeline on prompts and seeds, the same way whatever the batch size."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import DiffusionPipeline
from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveInt

from mezzotint._files import read_json, validated
from mezzotint._progress import track
from mezzotint.errors import MezzotintError, ModelError, UsageError
from mezzotint.plan import Sampling

GENERATION_FILE = "generation.json"
"""Optional file in a pipeline's folder: defaults for the arguments of the pipeline's call."""

_OURS = frozenset({"prompt", "generator", "output_type", "return_dict", "num_images_per_prompt"})
"""Call arguments that sampling itself sets."""


class GenerationDefaults(BaseModel):
    """The content of `generation.json`; any further field is an argument of the pipeline's call."""

    model_config = ConfigDict(extra="allow", frozen=True)

    num_inference_steps: PositiveInt | None = None
    guidance_scale: NonNegativeFloat | None = None


def generation_defaults(pipe: DiffusionPipeline) -> dict[str, Any]:
    """Call arguments that the pipeline's folder prescribes; empty without `generation.json`.

    Raises:
        ModelError: the file is not valid JSON, or a field has a wrong value or names no argument
            of the pipeline's call.
    """
    path = Path(pipe.name_or_path or "") / GENERATION_FILE
    if not pipe.name_or_path or not path.is_file():
        return {}
    defaults = validated(GenerationDefaults, read_json(path, ModelError), path, ModelError)
    fields = defaults.model_dump(exclude_unset=True)
    for field in fields:
        if field in _OURS:
            raise ModelError(f"{path}: field {field}: is set by sampling; remove it")
        if field not in _call_parameters(pipe):
            kind = type(pipe).__name__
            raise ModelError(f"{path}: field {field}: {kind} takes no such argument; remove it")
    return fields


def default_steps(pipe: DiffusionPipeline) -> int:
    """Denoising steps that the pipeline takes where the caller says nothing; 50 where unknown.

    Raises:
        ModelError: `generation.json` is malformed.
    """
    named = generation_defaults(pipe).get("num_inference_steps")
    parameter = _call_parameters(pipe).get("num_inference_steps")
    usual = None if parameter is None else parameter.default
    return next((steps for steps in (named, usual) if isinstance(steps, int) and steps > 0), 50)


@torch.no_grad()
def generate(
    pipe: DiffusionPipeline, sampling: Sampling, *, progress: bool = True
) -> npt.NDArray[np.uint8]:
    """Images of the prompts, uint8 [n, H, W, 3] in RGB.

    Raises:
        ModelError: the pipeline does not make images from text, or its `generation.json` is wrong.
        UsageError: `sampling` sets what the pipeline's call has no argument for.
    """
    batches = run_batches(pipe, sampling, output_type="np")
    if progress:
        batches = track(batches, "Generating", math.ceil(len(sampling.prompts) / sampling.batch))
    return np.concatenate([_to_uint8(pipe, output) for output in batches])


def run_batches(pipe: DiffusionPipeline, sampling: Sampling, *, output_type: str) -> Iterator[Any]:
    """The pipeline's outputs, batch after batch, its own progress bars switched off.

    Raises:
        ModelError: the pipeline's own code fails, or it does not make images from text.
        UsageError: `sampling` sets what the pipeline's call has no argument for.
    """
    arguments = _arguments(pipe, sampling)
    prompts = sampling.prompts
    for start in range(0, len(prompts), sampling.batch):
        chunk = prompts[start : start + sampling.batch]
        # One CPU generator per image: its noise depends on neither batch size nor device.
        seeds = range(sampling.seed + start, sampling.seed + start + len(chunk))
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        with _quiet(pipe):
            try:
                output = pipe(
                    prompt=list(chunk), generator=generators, output_type=output_type, **arguments
                )
            except MezzotintError:
                raise
            except Exception as cause:  # whatever a pipeline's own code may raise
                raise ModelError(
                    f"{type(pipe).__name__} fails on its own call ({first_line(cause)}); check "
                    "its components, or record calls that it takes"
                ) from cause
        yield output


def first_line(error: Exception) -> str:
    """The first line of a message, or the error's type where it has none."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _arguments(pipe: DiffusionPipeline, sampling: Sampling) -> dict[str, Any]:
    """The folder's defaults, overridden by what `sampling` sets."""
    parameters, name = _call_parameters(pipe), type(pipe).__name__
    if not {"prompt", "generator", "output_type"} <= parameters.keys():
        raise ModelError(f"{name} does not make images from text; use a text-to-image pipeline")
    chosen = {"num_inference_steps": sampling.steps, "guidance_scale": sampling.guidance}
    arguments = generation_defaults(pipe)
    for field, value in chosen.items():
        if value is None:
            continue
        if field not in parameters:
            raise UsageError(f"{name} takes no {field}; leave it unset")
        arguments[field] = value
    _check_steps(pipe, arguments.get("num_inference_steps"))
    return arguments


def _check_steps(pipe: DiffusionPipeline, steps: int | None) -> None:
    """Refuse more steps than there are timesteps: schedulers fail on them each in its own way."""
    config = getattr(getattr(pipe, "scheduler", None), "config", {})
    known = config.get("num_train_timesteps")
    if steps is not None and isinstance(known, int) and steps > known:
        raise UsageError(
            f"steps: {steps:,} are more than the {known:,} timesteps that the pipeline's "
            f"{type(pipe.scheduler).__name__} knows; use fewer"
        )


def _call_parameters(pipe: DiffusionPipeline) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(type(pipe).__call__).parameters


def rgb_images(pipe: DiffusionPipeline, output: Any) -> npt.NDArray[Any]:
    """The images of a pipeline's output of type `np`: [n, height, width, 3], in [0, 1].

    Raises:
        ModelError: it holds none.
    """
    images = getattr(output, "images", None)
    if not isinstance(images, np.ndarray) or images.ndim != 4 or images.shape[-1] != 3:
        raise ModelError(f"{type(pipe).__name__} returned no RGB images; use a text-to-image model")
    return images


def _to_uint8(pipe: DiffusionPipeline, output: Any) -> npt.NDArray[np.uint8]:
    images = rgb_images(pipe, output)
    if not np.isfinite(images).all():
        raise ModelError(f"{type(pipe).__name__} returned images with NaN or infinite values")
    return (images.clip(0, 1) * 255).round().astype(np.uint8)


@contextmanager
def _quiet(pipe: DiffusionPipeline) -> Iterator[None]:
    """Hide the pipeline's per-step bar, and restore its setting."""
    before = dict(getattr(pipe, "_progress_bar_config", {}))
    pipe.set_progress_bar_config(**{**before, "disable": True})
    try:
        yield
    finally:
        pipe.set_progress_bar_config(**before)
