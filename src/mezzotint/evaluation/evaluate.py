"""Comparison of a quantized pipeline with its original, on the same prompts and seeds."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import numpy.typing as npt
import torch
from diffusers import DiffusionPipeline
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
from mezzotint.evaluation.comparison import Evaluation
from mezzotint.evaluation.contrastive import contrastive_for
from mezzotint.evaluation.distribution import frechet_distance
from mezzotint.evaluation.error import error_by_timestep
from mezzotint.evaluation.features import IMAGE_SIZE, lite0_available, lite0_features
from mezzotint.evaluation.paired import psnr, ssim
from mezzotint.measuring import ExecutorFactory, chosen_executor
from mezzotint.models import (
    Call,
    Sampling,
    check_pipeline,
    denoising_module,
    find_denoisers,
    flat_frames,
)
from mezzotint.runtime import PackedLayer, module_bytes, packed_layers, rounded_attention


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
            reference's; or the reference lacks a component that is packed.
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
    names = _counted(pipe)
    sized, reference_sized = (_parts(each, names) for each in (pipe, reference.pipe))
    return Evaluation(
        psnr_db=bootstrap_interval(reference.of_each(psnr(reference.images, images))),
        ssim=bootstrap_interval(reference.of_each(ssim(reference.images, images))),
        error=error_by_timestep(_replayed(reference.calls, denoising_module(pipe))),
        fd_lite0=_distance(reference, images),
        r_precision=_r_precision(reference, first),
        reference_r_precision=_r_precision(reference, expected),
        r_precision_change=_change(first, expected),
        denoiser_bytes=module_bytes(sized),
        reference_bytes=module_bytes(reference_sized),
        reference_weights=_weights(reference_sized),
        context=_context(reference, pipe) | {"components": names},
        left_out=_left_out(reference),
    )


def _counted(pipe: DiffusionPipeline) -> list[str]:
    """Names of the components whose bytes are told: denoisers, and what else is packed."""
    denoisers = find_denoisers(pipe)
    return sorted(
        name
        for name, part in pipe.components.items()
        if name in denoisers or (isinstance(part, torch.nn.Module) and packed_layers(part))
    )


def _parts(pipe: DiffusionPipeline, names: Sequence[str]) -> torch.nn.Module:
    """Components of a pipeline as one module, whose bytes are counted.

    Raises:
        UsageError: the pipeline lacks one.
    """
    parts = torch.nn.ModuleDict()
    for name in names:
        part = pipe.components.get(name)
        if part is None:
            raise UsageError(
                f"reference: has no {name}, which is packed in the other; give its original"
            )
        parts[name] = part
    return parts


def _weights(parts: torch.nn.Module) -> int:
    """Parameters of modules as they were before any layer was packed: codes are buffers."""
    floating = sum(parameter.numel() for parameter in parts.parameters())
    packed = packed_layers(parts).values()
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


def _has_simulated_input(layer: PackedLayer) -> bool:
    activation = layer.choice.activation_format
    return activation is not None and activation.simulated
