"""What one choice costs in the generated images, when only that layer is changed."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map

from mezzotint.errors import CalibrationError, ModelError
from mezzotint.models import Call, Sampling, find_denoiser
from mezzotint.models.sampling import run_batches
from mezzotint.plan import Choice
from mezzotint.runtime import Calibration
from mezzotint.sensitivity._patching import Forward, patched
from mezzotint.sensitivity.journal import Journal
from mezzotint.sensitivity.replay import CACHE_BYTES, Replay
from mezzotint.sensitivity.schedule import measure_missing
from mezzotint.sensitivity.ssim import global_ssim
from mezzotint.sensitivity.units import Unit, changed_layer

_FLOOR = "noise floor | ssim"


@dataclass(frozen=True)
class Similarity:
    """Likeness of generated images to the floating pipeline's.

    Attributes:
        ssim: mean over prompts of `global_ssim`; 1 for equal images.
    """

    ssim: float

    def figures(self) -> dict[str, float]:
        """For files and tables."""
        return {"ssim": self.ssim}


@dataclass(frozen=True)
class ImageScores:
    """Similarities by layer and choice.

    Attributes:
        floor: the floating pipeline against itself; 1 where it repeats itself exactly.
        scores: layer → choice → similarity, in the order of the units.
    """

    floor: Similarity
    scores: dict[str, dict[Choice, Similarity]]


@dataclass(frozen=True, eq=False)
class ImageReference:
    """The floating pipeline's images, and what its denoiser was given first.

    Attributes:
        pipe: the pipeline; floating.
        denoiser: the component of it that is measured.
        sampling: prompts, seeds and steps.
        images: float32 [n, 3, h, w] in [0, 1], before rounding to 8 bits, on the CPU.
        calls: each batch's first call of the denoiser: the one whose inputs no layer can change.
    """

    pipe: DiffusionPipeline
    denoiser: nn.Module
    sampling: Sampling
    images: Tensor
    calls: tuple[Call, ...]

    @classmethod
    @torch.no_grad()
    def of(cls, pipe: DiffusionPipeline, sampling: Sampling) -> ImageReference:
        """Run the pipeline once.

        Raises:
            ModelError: it has no single denoiser, or does not make RGB images from text.
            CalibrationError: an image holds NaN.
        """
        _, denoiser = find_denoiser(pipe)
        images: list[Tensor] = []
        calls: list[Call] = []
        forward = denoiser.forward

        @functools.wraps(forward)
        def recording(*args: Any, **kwargs: Any) -> Any:
            if len(calls) == len(images):
                calls.append(Call(*tree_map(_copied, (args, kwargs))))
            return forward(*args, **kwargs)

        with patched({denoiser: recording}):
            for batch in _batches(pipe, sampling):
                images.append(batch)  # noqa: PERF402 - `recording` looks at the length
        found = torch.cat(images)
        if not bool(torch.isfinite(found).all()):
            raise CalibrationError(f"{type(pipe).__name__}: its images hold NaN or infinite values")
        return cls(pipe, denoiser, sampling, found, tuple(calls))


def measure_images(
    reference: ImageReference,
    units: Iterable[Unit],
    calibration: Calibration,
    journal: Journal,
    *,
    cache_bytes: int | None = CACHE_BYTES,
) -> ImageScores:
    """Every unit's similarity, taken from the journal where it is there already.

    A unit is one run of the pipeline on all prompts with the layer changed. In the first call of
    each batch, what runs before the layer is not computed again; images are those of full runs,
    bit for bit. With units that change an input only, call this once for them and once for the
    others: both kinds go by their choice.

    Args:
        reference: the floating pipeline's images.
        units: in any order, which the result keeps.
        calibration: the calibrated ranges and constant outputs.
        journal: where finished units are kept, beside those of other metrics.
        cache_bytes: memory for what runs before a layer, see `Replay`; 0 runs every call in full.

    Raises:
        CalibrationError: an image holds NaN; the layer is named.
    """
    units = tuple(units)
    replay = Replay(reference.denoiser, reference.calls, cache_bytes=cache_bytes)

    def score(unit: Unit) -> dict[str, Any]:
        return asdict(measure_unit_images(reference, unit, calibration, replay))

    if _FLOOR not in journal:
        journal.add(_FLOOR, asdict(noise_floor(reference)))
    measure_missing(units, journal, replay, score, _key)
    scores: dict[str, dict[Choice, Similarity]] = {}
    for unit in units:
        scores.setdefault(unit.layer, {})[unit.choice] = Similarity(**journal[_key(unit)])
    return ImageScores(Similarity(**journal[_FLOOR]), scores)


def measure_unit_images(
    reference: ImageReference, unit: Unit, calibration: Calibration, replay: Replay | None = None
) -> Similarity:
    """Generate all images with one layer changed; with `replay`, from where it stands.

    Raises:
        CalibrationError: an image holds NaN; the layer is named.
    """
    with changed_layer(reference.denoiser, unit, calibration):
        found = _similarity(reference, replay)
    if not math.isfinite(found.ssim):
        raise CalibrationError(
            f"layer {unit.layer} at {unit.choice}: the images hold NaN or infinite values"
        )
    return found


def noise_floor(reference: ImageReference) -> Similarity:
    """Generate all images again with nothing changed; exactly 1 where the pipeline is repeatable.

    Only so far as the floor lies below 1 may a similarity below 1 mean nothing.
    """
    return _similarity(reference, None)


def _key(unit: Unit) -> str:
    return f"{unit.name} | ssim"


@torch.no_grad()
def float_images(pipe: DiffusionPipeline, sampling: Sampling) -> Tensor:
    """The pipeline's images before rounding to 8 bits: float32 [n, 3, h, w] in [0, 1], on the CPU.

    Raises:
        ModelError: it does not make RGB images from text.
    """
    return torch.cat(list(_batches(pipe, sampling)))


@torch.no_grad()
def _similarity(reference: ImageReference, replay: Replay | None) -> Similarity:
    forwards = {} if replay is None else {reference.denoiser: _resuming(reference, replay)}
    with patched(forwards):
        images = float_images(reference.pipe, reference.sampling)
    return Similarity(float(global_ssim(reference.images, images).mean()))


def _resuming(reference: ImageReference, replay: Replay) -> Forward:
    """The denoiser's forward method; calls that `replay` knows are replayed."""
    forward = reference.denoiser.forward

    @functools.wraps(forward)
    def run(*args: Any, **kwargs: Any) -> Any:
        for call in reference.calls:
            if _equal((call.args, call.kwargs), (args, kwargs)):
                with replay.replaying(call):
                    return forward(*args, **kwargs)
        return forward(*args, **kwargs)

    return run


def _batches(pipe: DiffusionPipeline, sampling: Sampling) -> Iterator[Tensor]:
    """Float32 [n, 3, h, w] in [0, 1], batch after batch, on the CPU."""
    for output in run_batches(pipe, sampling, output_type="np"):
        images = getattr(output, "images", None)
        if not isinstance(images, np.ndarray) or images.ndim != 4 or images.shape[-1] != 3:
            raise ModelError(f"{type(pipe).__name__} returned no RGB images; use another model")
        yield torch.from_numpy(images).float().permute(0, 3, 1, 2)


def _equal(left: Any, right: Any) -> bool:
    (first, structure), (second, other) = tree_flatten(left), tree_flatten(right)
    return structure == other and all(map(_equal_leaves, first, second))


def _equal_leaves(left: Any, right: Any) -> bool:
    if not isinstance(left, Tensor) or not isinstance(right, Tensor):
        return left is right or bool(type(left) is type(right) and left == right)
    same = (left.dtype, left.device, left.shape) == (right.dtype, right.device, right.shape)
    return same and torch.equal(left, right)


def _copied(leaf: Any) -> Any:
    return leaf.detach().clone() if isinstance(leaf, Tensor) else leaf
