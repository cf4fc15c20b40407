"""Formats of a layer's quantized input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mezzotint.errors import FormatError
from mezzotint.formats.straight_through import straight_through

Granularity = Literal["tensor", "step", "token", "channel/simulated"]
"""Inputs that share a scale: all, those of one timestep, of one token or image, or of one channel
of one image."""


@dataclass(frozen=True)
class ActivationFormat:
    """Integers of `width` bits with a static scale per tensor or step, or a dynamic one per token.

    Per tensor (`uint8/tensor`): scale and zero point are calibrated once and stored with the
    layer. Per step (`uint4/step`): calibrated for each timestep of the denoiser, and stored in the
    tables of the structure `StepScales`. Per token (`int8/token`): computed from each input: one
    scale per row of [..., features] for a Linear, one per image of [n, c, h, w] for a convolution.

    Per image and channel (`uint8/channel/simulated`), of convolutions: computed from each input as
    well, but different along the sum of a product, which no integers can compute. Inputs are
    rounded and multiplied in floating point, and the name says so wherever it stands.
    """

    width: int
    symmetric: bool
    granularity: Granularity

    def __post_init__(self) -> None:
        if not 2 <= self.width <= 8:
            raise FormatError(f"bits is {self.width}; activations have 2 to 8, or are 'float'")

    @property
    def name(self) -> str:
        """Name of the format in plans."""
        return f"{'int' if self.symmetric else 'uint'}{self.width}/{self.granularity}"

    @property
    def static(self) -> bool:
        """True if one range, from calibration, holds for all inputs."""
        return self.granularity == "tensor"

    @property
    def per_step(self) -> bool:
        """True if each timestep has a range of its own, from calibration."""
        return self.granularity == "step"

    @property
    def dynamic(self) -> bool:
        """True if the range comes from each input itself."""
        return self.granularity == "token" or self.simulated

    @property
    def simulated(self) -> bool:
        """True if no product of integers can compute with its scales."""
        return self.granularity == "channel/simulated"

    @property
    def limits(self) -> tuple[int, int]:
        """Lowest and highest code."""
        if self.symmetric:
            top = 2 ** (self.width - 1) - 1
            return -top - 1, top
        return 0, 2**self.width - 1

    def parameters(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero point (float32, the latter whole) of the range [low, high]."""
        tiny = torch.finfo(torch.float32).tiny
        if self.symmetric:
            peak = torch.maximum(low.abs(), high.abs()).float()
            return (peak / self.limits[1]).clamp(min=tiny), torch.zeros_like(peak)
        low, high = low.clamp(max=0).float(), high.clamp(min=0).float()
        levels = self.limits[1]
        # Two quotients instead of one difference: high - low may overflow.
        scale = (high / levels - low / levels).clamp(min=tiny)
        return scale, (-low / scale).round().clamp(0, levels)

    def range_parameters(
        self, low: float, high: float, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Scale and zero point, float32 [1], of a calibrated range."""
        bounds = torch.tensor([low, high], device=device)
        return self.parameters(bounds[:1], bounds[1:])

    def dynamic_parameters(self, x: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Scale and zero point from `x` itself, reduced over `dims` (kept as size 1)."""
        if self.symmetric:
            peak = x.detach().abs().amax(dims, keepdim=True)
            return self.parameters(peak, peak)
        detached = x.detach()
        return self.parameters(detached.amin(dims, keepdim=True), detached.amax(dims, keepdim=True))

    def quantize(self, x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
        """Whole-numbered float32 codes of `x`."""
        low, high = self.limits
        return (x.float() / scale).round_().add_(zero_point).clamp_(low, high)

    def roundtrip(self, x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
        """Quantize `x` and decode it again, in its own dtype.

        Gradients pass as if nothing were rounded (straight through; Bengio et al. 2013).
        """
        worth = self.quantize(x, scale, zero_point).sub_(zero_point).mul_(scale).to(x.dtype)
        if x.requires_grad and torch.is_grad_enabled():
            return straight_through(worth, x)
        return worth

    def __str__(self) -> str:
        return self.name
