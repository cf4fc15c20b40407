"""Roundings of inputs whose scales and zero points are learned."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mezzotint.formats import ActivationFormat, as_bits, straight_through
from mezzotint.plan import Tensors
from mezzotint.rounding import fake_quantize_input
from mezzotint.runtime import InputQuantizer, InputRange, Operation, nearest_step
from mezzotint.runtime.operands import along_batch
from mezzotint.runtime.structures.step_scales import SCALE, TIMESTEP, ZERO_POINT
from mezzotint.runtime.structures.step_widths import within_widths

TimestepOf = Callable[[], Tensor]
"""Tells the timestep of the denoiser's call in progress, float32 [1] or [B]."""


class LearnedInput(nn.Module):
    """The rounding of one quantizer's input by a learned scale and zero point, or several.

    Zero points are whole numbers within the codes at all times; gradients pass straight through.

    Attributes:
        format: of the codes.
        log_scale: float32 [1], or [T] for the calibrated timesteps.
        zero_point: likewise; None where the format is symmetric.
        timesteps: float32 [T], rising; None for one scale at all times.
        bits: float32 [T], of the codes at each; None where all are as wide as the format.
    """

    timesteps: Tensor | None
    bits: Tensor | None

    def __init__(
        self,
        activation: ActivationFormat,
        scale: Tensor,
        zero_point: Tensor,
        timesteps: Tensor | None = None,
        bits: Tensor | None = None,
    ) -> None:
        """Start from calibrated values, float32."""
        super().__init__()
        self.format = activation
        self.log_scale = nn.Parameter(scale.detach().float().log())
        shifted = not activation.symmetric
        self.zero_point = nn.Parameter(zero_point.detach().float().clone()) if shifted else None
        self.register_buffer("timesteps", timesteps, persistent=False)
        self.register_buffer("bits", bits, persistent=False)

    def forward(self, x: Tensor, timestep: TimestepOf) -> Tensor:
        """The values of the codes of `x`, in its dtype."""
        scale, zero_point = self.scale, self.whole_zero_point
        if self.timesteps is not None:
            index = nearest_step(self.timesteps, timestep())
            if len(x) % len(index) and bool((index == index[0]).all()):
                index = index[:1]  # an input that all samples share
            if self.bits is not None:
                assert zero_point is not None, "such inputs are asymmetric"
                x = within_widths(x, scale[index], zero_point[index], self.bits[index])
            scale = along_batch(scale[index], x)
            zero_point = None if zero_point is None else along_batch(zero_point[index], x)
        return fake_quantize_input(x, scale, zero_point, self.format.width)

    @property
    def scale(self) -> Tensor:
        """Positive, float32 [1] or [T]."""
        info = torch.finfo(torch.float32)
        return self.log_scale.exp().clamp(info.tiny, info.max)

    @property
    def whole_zero_point(self) -> Tensor | None:
        """Codes of zero, float32 [1] or [T]; None where the format is symmetric."""
        if self.zero_point is None:
            return None
        whole = self.zero_point.detach().round().clamp(*self.format.limits)
        return straight_through(whole, self.zero_point)

    def range(self) -> InputRange:
        """The range that a static format finds scale and zero point from."""
        low, high = self.format.limits
        zero_point = self.whole_zero_point
        shift = 0.0 if zero_point is None else float(zero_point.detach())
        scale = float(self.scale.detach())
        if self.format.symmetric:
            return InputRange(-scale * high, scale * high)
        return InputRange(scale * (low - shift), scale * (high - shift))

    def tables(self) -> Tensors:
        """Stored tensors of the structure `StepScales`."""
        assert self.timesteps is not None
        zero_point = self.whole_zero_point
        if zero_point is None:
            zero_point = torch.zeros_like(self.timesteps)
        return {
            TIMESTEP: as_bits(self.timesteps.clone()),
            SCALE: as_bits(self.scale.detach()),
            ZERO_POINT: zero_point.detach().to(torch.uint8),
        }


class DynamicInput(nn.Module):
    """The rounding of an input by scales that it tells itself; nothing is learned."""

    def __init__(self, activation: ActivationFormat, operation: Operation) -> None:
        """The scales that inputs of an operation have."""
        super().__init__()
        self.quantizer, self.operation = InputQuantizer(activation), operation

    def forward(self, x: Tensor, timestep: TimestepOf) -> Tensor:
        """The values of the codes of `x`, in its dtype."""
        return self.quantizer.rounded(x, self.operation)


class FloatingInput(nn.Module):
    """An input that is not rounded."""

    def forward(self, x: Tensor, timestep: TimestepOf) -> Tensor:
        """`x` itself."""
        return x
