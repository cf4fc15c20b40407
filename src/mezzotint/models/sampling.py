"""Running a pipeline on prompts and seeds, the same way whatever the batch size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import DiffusionPipeline

from mezzotint._progress import track
from mezzotint.errors import MezzotintError, ModelError, UsageError, first_line
from mezzotint.models.inner_pipelines import all_pipelines
from mezzotint.models.pipeline_call import fixed_arguments, own_arguments, remedy
from mezzotint.models.step_progress import StepProgress
from mezzotint.plan import Sampling


@torch.no_grad()
def generate(
    pipe: DiffusionPipeline, sampling: Sampling, *, progress: bool = True
) -> npt.NDArray[np.uint8]:
    """Images of the prompts, uint8 [n, H, W, 3] in RGB; of videos [n, frames, H, W, 3].

    Raises:
        ModelError: the pipeline does not make images, or NaN, or its `generation.json` is wrong.
        UsageError: `sampling` sets what the pipeline's call has no argument for, or lacks what it
            needs.
    """
    batches = pixel_batches(pipe, sampling)
    if progress:
        batches = track(batches, "Generating", math.ceil(len(sampling) / sampling.batch))
    return np.concatenate([_to_uint8(pipe, images) for images in batches])


def pixel_batches(pipe: DiffusionPipeline, sampling: Sampling) -> Iterator[npt.NDArray[Any]]:
    """Images before rounding, floating [n, H, W, 3] or [n, frames, H, W, 3], batch after batch.

    Raises:
        ModelError, UsageError: as `run_batches`; or there are no images, or not one for each seed.
    """
    outputs = run_batches(pipe, sampling, output_type="np")
    for part, output in zip(sampling.batches(), outputs, strict=True):
        images = rgb_images(pipe, output)
        if len(images) != len(part):
            raise UsageError(
                f"call_kwargs: {type(pipe).__name__} made {len(images)} images where {len(part)} "
                "were asked for; give one value for all of them, or a list with one for each"
            )
        yield images


def run_batches(pipe: DiffusionPipeline, sampling: Sampling, *, output_type: str) -> Iterator[Any]:
    """The pipeline's outputs, batch after batch, its own progress bars switched off.

    Raises:
        ModelError: the pipeline's own code fails, or it makes no images from noise.
        UsageError: `sampling` sets what the pipeline's call has no argument for, or lacks what it
            needs.
    """
    arguments = fixed_arguments(pipe, sampling)
    for part in sampling.batches():
        # One CPU generator per image: its noise depends on neither batch size nor device.
        seeds = range(part.seed, part.seed + len(part))
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        own = own_arguments(pipe, part)
        with _quiet(pipe):
            try:
                output = pipe(generator=generators, output_type=output_type, **arguments, **own)
            except MezzotintError:
                raise
            except Exception as cause:  # whatever a pipeline's own code may raise
                raise ModelError(
                    f"{type(pipe).__name__} fails on its own call ({first_line(cause)}); "
                    f"{remedy(pipe, sampling)}"
                ) from cause
        yield output


def rgb_images(pipe: DiffusionPipeline, output: Any) -> npt.NDArray[Any]:
    """The images of a pipeline's output of type `np`, in [0, 1].

    Returns:
        [n, height, width, 3], grey ones in RGB; of videos [n, frames, height, width, 3].

    Raises:
        ModelError: it holds none.
    """
    frames = getattr(output, "frames", None)
    images = getattr(output, "images", None) if frames is None else np.asarray(frames)
    dimensions = 4 if frames is None else 5
    if isinstance(images, np.ndarray) and images.ndim == dimensions and images.shape[-1] == 1:
        images = images.repeat(3, axis=-1)
    if (
        not isinstance(images, np.ndarray)
        or images.ndim != dimensions
        or images.shape[-1] != 3
        or not np.issubdtype(images.dtype, np.floating)
    ):
        raise ModelError(
            f"{type(pipe).__name__} returned no RGB images or frames; use a model that makes some"
        )
    return images


def flat_frames(images: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Images as they are, [n, H, W, 3], and of videos all frames, one video after another."""
    return images if images.ndim == 4 else images.reshape(-1, *images.shape[2:])


def _to_uint8(pipe: DiffusionPipeline, images: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    if not np.isfinite(images).all():
        raise ModelError(f"{type(pipe).__name__} returned images with NaN or infinite values")
    return (images.clip(0, 1) * 255).round().astype(np.uint8)


@contextmanager
def _quiet(pipe: DiffusionPipeline) -> Iterator[None]:
    """Let the work around it be told of the pipeline's steps, in the place of a bar of its own."""
    with ExitStack() as restoring:
        for each in all_pipelines(pipe):
            if "progress_bar" in vars(each):
                restoring.callback(setattr, each, "progress_bar", each.progress_bar)
            else:
                restoring.callback(delattr, each, "progress_bar")
            each.progress_bar = StepProgress
        yield
