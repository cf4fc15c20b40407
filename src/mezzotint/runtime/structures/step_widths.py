"""A width of the input, beside its scale and zero point, for each timestep of the denoiser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from mezzotint.errors import FormatError
from mezzotint.formats import ActivationFormat, TensorSpec, from_bits
from mezzotint.plan import NOW, LayerShape, Parts, Tensors, register_structure
from mezzotint.runtime.operands import along_batch
from mezzotint.runtime.structures.step_scales import TIMESTEP, StepScales, parameters_at
from mezzotint.runtime.timestep import nearest_step

BITS = "step_bits"
NARROWEST, WIDEST = 2, 8


@register_structure
@dataclass(frozen=True)
class StepWidths(StepScales):
    """The input has as many bits at each calibrated timestep as the plan says.

    For the activation format `uint8/step`, in whose products narrower codes are computed exactly:
    an input is clamped to what codes of the timestep's width can say, and then rounded as ever.
    Stored are the tables of `StepScales`, and `step_bits` (uint8): ten bytes for each timestep.

    Attributes:
        steps: calibrated timesteps, such as the steps of the sampler.
        bits: of the input at each of them, in rising order of the timesteps; 2 to 8.

    Raises:
        FormatError: the number of steps or a width is out of its domain, or they do not fit.
    """

    bits: tuple[int, ...] = ()

    kind = "step_widths"

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.bits) != self.steps:
            raise FormatError(
                f"{self.kind}: has {len(self.bits)} widths for {self.steps} steps; give one for "
                "each"
            )
        for each in self.bits:
            if type(each) is not int or not NARROWEST <= each <= WIDEST:
                raise FormatError(
                    f"{self.kind}: bits are {each!r} at one step; expected {NARROWEST} to {WIDEST}"
                )

    @property
    @override
    def label(self) -> str:
        low, high = min(self.bits), max(self.bits)
        shown = f"{low} bits" if low == high else f"{low} to {high} bits"
        return f"input scales of {self.steps} steps, {shown}"

    @override
    def refuse_input(self, activation: ActivationFormat) -> str | None:
        if activation.symmetric or activation.width != WIDEST:
            return f"{self.kind} narrows the codes of 'uint{WIDEST}/step'; take that"
        return None

    @override
    def tensors(self, layer: LayerShape) -> Mapping[str, TensorSpec]:
        return {**super().tensors(layer), BITS: TensorSpec((self.steps,), torch.uint8)}

    @override
    def derived(self, weight: Tensor, layer: LayerShape, tensors: Tensors) -> Tensors:
        return {BITS: torch.tensor(self.bits, dtype=torch.uint8, device=weight.device)}

    @override
    def check_tensor(self, name: str, tensor: Tensor) -> None:
        if name != BITS:
            super().check_tensor(name, tensor)
        elif tuple(tensor.tolist()) != self.bits:
            raise FormatError(f"{name} are not the widths that the plan has")

    @override
    def forward(
        self, x: Tensor, parts: Parts, layer: LayerShape, tensors: Tensors, bias: Tensor | None
    ) -> Tensor:
        scale, zero_point = parameters_at(tensors[NOW], tensors)
        narrow = within_widths(x, scale, zero_point, bits_at(tensors[NOW], tensors))
        return parts["scaled"](narrow, scale, zero_point, bias)


def bits_at(timestep: Tensor, tensors: Tensors) -> Tensor:
    """Width of the nearest calibrated timesteps, float32 [n].

    Args:
        timestep: float32 [n].
        tensors: as the structure stores them.
    """
    index = nearest_step(from_bits(tensors[TIMESTEP], torch.float32), timestep)
    return tensors[BITS][index].float()


def within_widths(x: Tensor, scale: Tensor, zero_point: Tensor, bits: Tensor) -> Tensor:
    """`x`, clamped to the values that asymmetric codes of some widths have.

    Rounded to wider codes of the same scale and zero point, it then has codes of those widths: of
    7 bits or less a limit is far nearer to its code than to the next, whatever the dtype of `x`.
    Gradients of what is clamped go to scale and zero point.

    Args:
        x: floating, of any shape.
        scale: float32 [1], or [n] for n equal parts of the batch, one after another.
        zero_point: whole numbers, likewise.
        bits: likewise; 8 sets no limit.
    """
    if len(bits) > 1 and x.shape[0] % len(bits):
        if not all(bool((each == each[0]).all()) for each in (scale, zero_point, bits)):
            return x  # whoever rounds it refuses such a batch
        scale, zero_point, bits = scale[:1], zero_point[:1], bits[:1]
    endless = torch.where(bits < WIDEST, 0.0, torch.inf)
    low = -zero_point * scale - endless
    high = (2.0**bits - 1 - zero_point) * scale + endless
    return x.clamp(*(along_batch(each, x).to(x.dtype) for each in (low, high)))
