"""Error of the predicted noise: the denoiser's output, before and after quantization."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from mezzotint.errors import CalibrationError, UsageError
from mezzotint.evaluation.bootstrap import bootstrap_interval
from mezzotint.measuring import decibels, relative_noise


@dataclass(frozen=True)
class StepError:
    """Signal-to-quantization-noise ratio of the noise prediction at one timestep.

    Attributes:
        timestep: as the denoiser was given it.
        sqnr_db: -10 log10 of the mean over samples of Σ(y - ŷ)² / Σy²; infinite if exact.
        low: lower bound of the 95% confidence interval, in dB; NaN with one sample.
        high: upper bound.
        samples: how many samples the mean is over.
    """

    timestep: float
    sqnr_db: float
    low: float
    high: float
    samples: int


def sqnr(reference: Tensor, output: Tensor, *, per_sample: bool = True) -> Tensor:
    """Signal-to-quantization-noise ratio in dB: 10 log10(Σy² / Σ(y - ŷ)²).

    Args:
        reference: y, [n, ...], of any floating dtype and scale; computed in float64.
        output: ŷ, of the same shape.
        per_sample: one figure for each entry of the first dimension, or one for the whole tensor.

    Returns:
        float64 [n], or a scalar; infinite where the two are equal.

    Raises:
        UsageError: the shapes differ.
        CalibrationError: a value is NaN or infinite.
    """
    noise = (
        _checked_noise(reference, output)
        if per_sample
        else _checked_noise(reference[None], output[None]).squeeze(0)
    )
    return -10 * noise.log10()


def error_by_timestep(
    calls: Iterable[tuple[float, Tensor, Tensor]], *, seed: int = 0
) -> tuple[StepError, ...]:
    """SQNR of the noise prediction at each timestep, with a bootstrap interval over samples.

    Noise-to-signal ratios are averaged, and the mean is turned into dB: a mean of decibels would
    let the many easy samples hide the few that quantization ruins.

    Args:
        calls: (timestep, reference output [n, ...], quantized output [n, ...]) of each denoiser
            call, in order.
        seed: of the bootstrap.

    Returns:
        One entry per distinct timestep, in order of first appearance.

    Raises:
        UsageError: the outputs of a call differ in shape.
        CalibrationError: an output holds NaN or infinite values.
    """
    ratios: dict[float, list[float]] = {}
    for timestep, reference, output in calls:
        ratios.setdefault(timestep, []).extend(_checked_noise(reference, output).tolist())
    return tuple(_step_error(timestep, values, seed) for timestep, values in ratios.items())


def _step_error(timestep: float, ratios: list[float], seed: int) -> StepError:
    noise = bootstrap_interval(ratios, seed=seed)
    # More noise is fewer decibels: the bounds change places.
    return StepError(
        timestep=timestep,
        sqnr_db=decibels(noise.value),
        low=decibels(noise.high),
        high=decibels(noise.low),
        samples=len(ratios),
    )


def _checked_noise(reference: Tensor, output: Tensor) -> Tensor:
    """Relative noise of each sample, float64 [n] on the CPU."""
    if reference.shape != output.shape:
        raise UsageError(
            f"reference and output differ in shape, {list(reference.shape)} and "
            f"{list(output.shape)}; compare outputs of the same call"
        )
    # On the CPU, since not every accelerator has float64.
    y, y_hat = (tensor.detach().cpu() for tensor in (reference, output))
    if not (y.isfinite().all() and y_hat.isfinite().all()):
        raise CalibrationError(
            "a denoiser output holds NaN or infinite values, so its error cannot be measured; "
            "give more bits to the layers that overflow"
        )
    return relative_noise(y, y_hat, torch.float64)
