"""Closeness of a quantized pipeline to its original: everything in one value."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import numpy.typing as npt
import torch
from diffusers import DiffusionPipeline
from rich.table import Table
from torch import Tensor

from mezzotint._progress import track
from mezzotint.errors import UsageError
from mezzotint.evaluation._images import ImageArray
from mezzotint.evaluation.alignment import Contrastive, RPrecision, ranked
from mezzotint.evaluation.baseline import Baseline, generated
from mezzotint.evaluation.bootstrap import (
    Interval,
    bootstrap_interval,
    paired_difference_interval,
)
from mezzotint.evaluation.contrastive import contrastive_for
from mezzotint.evaluation.distribution import MIN_IMAGES, frechet_distance
from mezzotint.evaluation.error import StepError, error_by_timestep
from mezzotint.evaluation.features import IMAGE_SIZE, lite0_available, lite0_features
from mezzotint.evaluation.paired import psnr, ssim
from mezzotint.measuring import ExecutorFactory, chosen_executor
from mezzotint.models import (
    Call,
    Sampling,
    check_pipeline,
    denoising_module,
    flat_frames,
)
from mezzotint.runtime import PackedLayer, module_bytes, packed_layers, rounded_attention


@dataclass(frozen=True)
class Evaluation:
    """Figures of one pipeline against its reference; same prompts, same seeds.

    Attributes:
        psnr_db, ssim: means over image pairs, with 95% bootstrap intervals; of videos, each one's
            mean over its frames counts as one pair.
        error: SQNR of the noise prediction per timestep, on the reference's own calls.
        fd_lite0: Fréchet distance of EfficientNet-Lite0 features to the reference's images; None
            below two images, or without the packages of the extra `evaluation`.
        r_precision, reference_r_precision: where a contrastive model was given.
        r_precision_change: ours less the reference's, image by image, with its 95% bootstrap
            interval; an interval that contains 0 shows no loss.
        left_out: figure → why it could not be had.
        denoiser_bytes, reference_bytes: of the tensors in memory.
        reference_weights: number of the reference denoiser's parameters, packed ones included.
        context: seeds, counts, versions, device.
    """

    psnr_db: Interval
    ssim: Interval
    error: Sequence[StepError]
    fd_lite0: float | None
    r_precision: RPrecision | None
    reference_r_precision: RPrecision | None
    r_precision_change: Interval | None
    denoiser_bytes: int
    reference_bytes: int
    reference_weights: int
    context: Mapping[str, Any]
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def of_fp16(self) -> float:
        """Bytes as a share of the reference's in 16-bit floating point."""
        return self.denoiser_bytes / (2 * self.reference_weights)

    @property
    def sqnr_db(self) -> float:
        """Mean over timesteps of the noise prediction's SQNR."""
        return float(np.mean([step.sqnr_db for step in self.error]))

    def figures(self) -> dict[str, str]:
        """Column title → text, for tables and reports."""
        result = {
            "bytes": f"{self.denoiser_bytes:,}",
            "of fp16": f"{self.of_fp16:.3f}",
            "SQNR of ε (dB)": f"{self.sqnr_db:.2f}",
            f"PSNR{self._of_frames} (dB)": _spread(self.psnr_db, 2),
            f"SSIM{self._of_frames}": _spread(self.ssim, 4),
        }
        if simulated := _simulated(self.context):
            result["simulated"] = simulated
        if self.fd_lite0 is not None:
            pictures = self.context["images"] * self.context.get("frames", 1)
            biased = "" if pictures >= MIN_IMAGES else " (few images: biased)"
            result[f"FD-Lite0{self._of_frames}"] = f"{self.fd_lite0:.3f}{biased}"
        if self.r_precision is not None:
            value = self.r_precision
            result["R-precision"] = f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"
        if self.r_precision_change is not None:
            result["R-precision, change"] = _spread(self.r_precision_change, 3)
        return result

    def to_dict(self) -> dict[str, Any]:
        """JSON values; figures that are infinite (no error at all) become None."""
        value = {
            "psnr_db": vars(self.psnr_db),
            "ssim": vars(self.ssim),
            "sqnr_db": self.sqnr_db,
            "error_by_timestep": [vars(step) for step in self.error],
            "fd_lite0": self.fd_lite0,
            "r_precision": None if self.r_precision is None else vars(self.r_precision),
            "reference_r_precision": (
                None if self.reference_r_precision is None else vars(self.reference_r_precision)
            ),
            "r_precision_change": (
                None if self.r_precision_change is None else vars(self.r_precision_change)
            ),
            "denoiser_bytes": self.denoiser_bytes,
            "reference_bytes": self.reference_bytes,
            "of_fp16": self.of_fp16,
            "left_out": dict(self.left_out),
            "context": dict(self.context),
        }
        finite: dict[str, Any] = _finite(value)
        return finite

    def table(self) -> Table:
        """A row per figure, then one per timestep."""
        made = "videos" if self._of_frames else "images"
        table = Table(title=f"{self.context['images']} {made} against the reference")
        table.add_column("figure")
        table.add_column("value", justify="right")
        table.add_row("reference bytes", f"{self.reference_bytes:,}")
        for title, text in self.figures().items():
            table.add_row(title, text)
        if self.reference_r_precision is not None:
            table.add_row("R-precision, reference", f"{self.reference_r_precision.value:.3f}")
        for title, reason in self.left_out.items():
            table.add_row(title, f"left out: {reason}")
        for step in self.error:
            span = f"[{step.low:.2f}, {step.high:.2f}]"
            table.add_row(f"SQNR of ε at t = {step.timestep:g} (dB)", f"{step.sqnr_db:.2f} {span}")
        return table

    @property
    def _of_frames(self) -> str:
        """Part of a title that tells pictures from frames of videos."""
        return " of frames" if "frames" in self.context else ""


def evaluate(
    reference: DiffusionPipeline | Baseline,
    pipe: DiffusionPipeline,
    sampling: Sampling | None = None,
    *,
    contrastive: Contrastive | None = None,
    images: ImageArray | None = None,
    executor: str | ExecutorFactory | None = None,
) -> Evaluation:
    """Compare `pipe` with `reference` on the same prompts, seeds and further arguments.

    Pipelines of videos are compared frame by frame. What a pipeline cannot have, such as the
    R-precision without text, is left out, and the result says why.

    Args:
        reference: the original pipeline, or a `Baseline` made of it once for several comparisons.
        pipe: the quantized pipeline.
        sampling: images to make of both; needed with a pipeline, ignored with a baseline.
        contrastive: text and image encoders for the R-precision; by default the embedded ones
            for embedded pipelines, and no R-precision for others.
        images: of `pipe` on the reference's sampling, as `generate` makes them, where they are
            made already.
        executor: name of what makes the images, such as `ray`, or makes that, given a pipeline; by
            default this process does.

    Raises:
        ModelError: a pipeline does not make images, or makes NaN.
        ExecutorError: the executor cannot be reached, or its workers die again and again.
        UsageError: there is no sampling, or the images are not as many and as large as the
            reference's.
    """
    check_pipeline(pipe)
    if not isinstance(reference, Baseline):
        check_pipeline(reference, "reference")
        if sampling is None:
            raise UsageError("sampling: give prompts, unless the reference is a Baseline")
        executor = chosen_executor(executor)
        contrastive = contrastive or contrastive_for(reference)
        reference = Baseline.of(reference, sampling, contrastive, executor=executor)
    images = generated(pipe, reference.sampling, executor) if images is None else images
    images = flat_frames(images)
    first, expected = reference.first_ranks_of(images), reference.first_ranks
    denoiser = denoising_module(pipe)
    reference_denoiser = denoising_module(reference.pipe)
    return Evaluation(
        psnr_db=bootstrap_interval(reference.of_each(psnr(reference.images, images))),
        ssim=bootstrap_interval(reference.of_each(ssim(reference.images, images))),
        error=error_by_timestep(_replayed(reference.calls, denoiser)),
        fd_lite0=_distance(reference, images),
        r_precision=_r_precision(reference, first),
        reference_r_precision=_r_precision(reference, expected),
        r_precision_change=_change(first, expected),
        denoiser_bytes=module_bytes(denoiser),
        reference_bytes=module_bytes(reference_denoiser),
        reference_weights=_weights(reference_denoiser),
        context=_context(reference, pipe),
        left_out=_left_out(reference),
    )


def _weights(denoiser: torch.nn.Module) -> int:
    """Parameters of the denoiser as it was before any layer was packed: codes are buffers."""
    floating = sum(parameter.numel() for parameter in denoiser.parameters())
    packed = packed_layers(denoiser).values()
    return floating + sum(math.prod(layer.weight_shape) for layer in packed)


@torch.no_grad()
def _replayed(
    calls: Sequence[Call], denoiser: torch.nn.Module
) -> list[tuple[float, Tensor, Tensor]]:
    """(timestep, reference output, output) of every recorded call."""
    device = next(denoiser.parameters()).device
    result = []
    for call in track(calls, "Replaying", len(calls)):
        assert call.output is not None
        output = call.to(device).run(denoiser).cpu()
        result.append((call.timestep, call.output, output))
    return result


def _distance(reference: Baseline, images: ImageArray) -> float | None:
    """FD-Lite0; None where it cannot be had, which is no reason to withhold the other figures."""
    if len(images) < 2 or not lite0_available():
        return None
    return frechet_distance(reference.features, lite0_features(images))


def _left_out(reference: Baseline) -> dict[str, str]:
    """Figure → why the reference has none."""
    found = {}
    if len(reference.images) < 2:
        found["FD-Lite0"] = "a distribution takes two images or more"
    elif not lite0_available():
        found["FD-Lite0"] = "the packages of the extra mezzotint[evaluation] are not installed"
    if reference.first_ranks is None:
        found["R-precision"] = reference.no_ranks
    return found


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _r_precision(reference: Baseline, first: npt.NDArray[np.bool_] | None) -> RPrecision | None:
    return None if first is None else RPrecision.of(first, ranked(reference.sampling.prompts))


def _change(
    first: npt.NDArray[np.bool_] | None, expected: npt.NDArray[np.bool_] | None
) -> Interval | None:
    if first is None or expected is None:
        return None
    return paired_difference_interval(first, expected)


def _context(reference: Baseline, pipe: DiffusionPipeline) -> dict[str, Any]:
    sampling, denoiser = reference.sampling, denoising_module(pipe)
    further: dict[str, Any] = {} if reference.frames is None else {"frames": reference.frames}
    if sampling.call_kwargs:
        further["call_kwargs"] = sampling.call_kwargs.to_dict()
    parameter, attention = next(denoiser.parameters()), rounded_attention(denoiser)
    return {
        "reference": Path(reference.pipe.name_or_path or "").name,
        "model": Path(pipe.name_or_path or "").name,
        "images": len(sampling),
        "distinct_prompts": len(set(sampling.prompts)),
        "seed": sampling.seed,
        "steps": sampling.steps,
        "guidance": sampling.guidance,
        **further,
        "device": str(parameter.device),
        "dtype": str(parameter.dtype).removeprefix("torch."),
        "simulated_inputs": sum(map(_has_simulated_input, packed_layers(denoiser).values())),
        "simulated_attention": None if attention is None else str(attention),
        "feature_size": IMAGE_SIZE,
        "mezzotint": version("mezzotint"),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "machine": platform.machine(),
    }


def _simulated(context: Mapping[str, Any]) -> str:
    """Parts of a pipeline that are simulated, for people; empty where none is."""
    inputs, attention = context.get("simulated_inputs"), context.get("simulated_attention")
    found = [f"inputs of {inputs} layers"] if inputs else []
    return "; ".join(found + ([f"attention: {attention}"] if attention else []))


def _has_simulated_input(layer: PackedLayer) -> bool:
    activation = layer.choice.activation_format
    return activation is not None and activation.simulated


def _spread(interval: Interval, digits: int) -> str:
    return f"{interval.value:.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"
