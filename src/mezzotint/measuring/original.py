"""The floating model, and what is recorded of it for comparison."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from mezzotint.errors import CalibrationError, UsageError
from mezzotint.models import Call, Sampling, find_denoiser, parts_of, with_components
from mezzotint.models.patching import patched
from mezzotint.models.sampling import flat_frames, pixel_batches
from mezzotint.runtime import Calibration


@dataclass(frozen=True, eq=False)
class OriginalImages:
    """The floating pipeline's images, and what its denoiser was given first.

    Attributes:
        images: float32 [n, 3, h, w] in [0, 1], before rounding to 8 bits, on the CPU.
        calls: each batch's first call of the denoiser: the one whose inputs no layer can change.
    """

    images: Tensor
    calls: tuple[Call, ...]

    @functools.cached_property
    def digest(self) -> str:
        """A hash of the images."""
        return hashlib.sha256(self.images.numpy().tobytes()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Original:
    """The floating model, its recorded calls, and what was calibrated.

    Attributes:
        denoiser: floating.
        calls: recorded, with their outputs; for metrics that see outputs.
        calibration: static ranges and structures' tensors, for layers that need some.
        pipe: the pipeline around the denoiser; for metrics that see images.
        sampling: prompts, seeds and steps of those images.
        momentum: with which the static ranges were calibrated, see `input_ranges`.
        part: digest of the calls where they are only a part of those that were recorded, and
            moments are of the others; None where all are of all.
        made: the images, where they were made before, in another process.
    """

    denoiser: nn.Module
    calls: tuple[Call, ...] = ()
    calibration: Calibration = field(default_factory=Calibration)
    pipe: DiffusionPipeline | None = None
    sampling: Sampling | None = None
    momentum: float | None = None
    part: str | None = None
    made: OriginalImages | None = None

    @functools.cached_property
    def images(self) -> OriginalImages:
        """The images of all prompts; made once.

        Raises:
            UsageError: there is no pipeline.
            ModelError: it does not make RGB images.
            CalibrationError: an image holds NaN.
        """
        if self.made is not None:
            return self.made
        return reference_images(self.pipeline(), self.denoiser, self._sampling())

    def batches(self, denoiser: nn.Module, prompts: int | None = None) -> Iterator[Tensor]:
        """The images that the pipeline makes with `denoiser` in the place of its own.

        Yields:
            float32 [n, 3, h, w] in [0, 1], before rounding to 8 bits, batch after batch, CPU.

        Raises:
            UsageError: there is no pipeline.
            ModelError: it does not make RGB images.
        """
        pipe, sampling = self.pipeline(), self._sampling()
        if denoiser is not self.denoiser:
            pipe = with_denoiser(pipe, denoiser)
        if prompts is not None:
            sampling = sampling.part(0, prompts)
        return image_batches(pipe, sampling)

    def pictures(self, prompts: int | None = None) -> int:
        """Number of pictures of the first prompts, frames of videos among them."""
        made, images = len(self.images.images), len(self._sampling())
        return made if prompts is None else made // images * min(prompts, images)

    def pipeline(self) -> DiffusionPipeline:
        """The pipeline around the denoiser.

        Raises:
            UsageError: there is none.
        """
        if self.pipe is None:
            raise UsageError(_NO_IMAGES)
        return self.pipe

    def _sampling(self) -> Sampling:
        if self.sampling is None:
            raise UsageError(_NO_IMAGES)
        return self.sampling


_NO_IMAGES = (
    "the metric compares images, which a bare denoiser does not make; give a pipeline, or measure "
    "outputs instead"
)


def with_denoiser(pipe: DiffusionPipeline, denoiser: nn.Module) -> DiffusionPipeline:
    """A shallow copy of the pipeline that shares everything but its denoiser.

    Of a joint module each component takes its place.
    """
    parts = parts_of(denoiser).items()
    return with_components(
        pipe, {find_denoiser(pipe)[0] if name is None else name: part for name, part in parts}
    )


@torch.no_grad()
def reference_images(
    pipe: DiffusionPipeline, denoiser: nn.Module, sampling: Sampling
) -> OriginalImages:
    """Run the floating pipeline once.

    Raises:
        ModelError: it does not make RGB images.
        CalibrationError: an image holds NaN.
    """
    images: list[Tensor] = []
    calls: list[Call] = []
    forward = denoiser.forward

    @functools.wraps(forward)
    def recording(*args: Any, **kwargs: Any) -> Any:
        if len(calls) == len(images):
            calls.append(Call(*tree_map(_copied, (args, kwargs))))
        return forward(*args, **kwargs)

    with patched({denoiser: recording}):
        for batch in image_batches(pipe, sampling):
            images.append(batch)  # noqa: PERF402 - `recording` looks at the length
    found = torch.cat(images)
    if not bool(torch.isfinite(found).all()):
        raise CalibrationError(f"{type(pipe).__name__}: its images hold NaN or infinite values")
    return OriginalImages(found, tuple(calls))


@torch.no_grad()
def image_batches(pipe: DiffusionPipeline, sampling: Sampling) -> Iterator[Tensor]:
    """The pipeline's images before rounding: float32 [n, 3, h, w] in [0, 1], on the CPU.

    Of videos, all frames, one video after another.

    Raises:
        ModelError: it does not make RGB images.
    """
    for images in pixel_batches(pipe, sampling):
        yield torch.from_numpy(flat_frames(images)).float().permute(0, 3, 1, 2)


def _copied(leaf: Any) -> Any:
    return leaf.detach().clone() if isinstance(leaf, Tensor) else leaf
