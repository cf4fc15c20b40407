"""A scale and zero point of the input for each timestep of the denoiser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from mezzotint.errors import FormatError
from mezzotint.formats import ActivationFormat, TensorSpec, as_bits, from_bits
from mezzotint.plan import (
    NOW,
    LayerShape,
    Parts,
    Structure,
    Tensors,
    check_count,
    register_structure,
)
from mezzotint.runtime.layer_tensors import places
from mezzotint.runtime.operands import InputQuantizer
from mezzotint.runtime.timestep import nearest_step

TIMESTEP = "timestep"
SCALE = "step_scale"
ZERO_POINT = "step_zero_point"


@register_structure
@dataclass(frozen=True)
class StepScales(Structure):
    """The input is rounded by the scale and zero point of the nearest calibrated timestep.

    For activation formats such as `uint4/step`. Stored are, for each calibrated timestep in rising
    order, `timestep` (float32 as int32 bits), `step_scale` (likewise) and `step_zero_point`
    (uint8): nine bytes. MPQ-DM (arXiv 2412.11549) and EfficientDM (arXiv 2310.03270), where steps
    are counted; here they are told by the timestep that the denoiser is given.

    Attributes:
        steps: calibrated timesteps, such as the steps of the sampler.

    Raises:
        FormatError: `steps` is no whole number from 1 to 65535.
    """

    steps: int

    kind = "step_scales"
    part_names = ("scaled",)
    calibrated = frozenset({TIMESTEP, SCALE, ZERO_POINT})
    left_out_by = "inputs per token"
    granularity = "step"
    timed = True

    def __post_init__(self) -> None:
        check_count(self, "steps", self.steps)

    @property
    @override
    def label(self) -> str:
        return f"input scales of {self.steps} steps"

    @property
    @override
    def calibrated_steps(self) -> int:
        return self.steps

    @override
    def part_shapes(self, layer: LayerShape) -> Mapping[str, LayerShape]:
        return {"scaled": layer}

    @override
    def refuse(self, inner: Structure) -> str | None:
        return f"its scales are those of a quantizer's own input; put {self.kind} last"

    @override
    def tensors(self, layer: LayerShape) -> Mapping[str, TensorSpec]:
        wide, narrow = (TensorSpec((self.steps,), each) for each in (torch.int32, torch.uint8))
        return {TIMESTEP: wide, SCALE: wide, ZERO_POINT: narrow}

    @override
    def check_tensor(self, name: str, tensor: Tensor) -> None:
        if name == ZERO_POINT:
            return  # its limits are those of the format, see `check_step_scales`
        values = from_bits(tensor, torch.float32)
        if not bool(values.isfinite().all()):
            raise FormatError(f"{name} holds NaN or infinite values")
        if name == SCALE and not bool((values > 0).all()):
            raise FormatError(f"{name} holds values that are not positive")
        if name == TIMESTEP and not bool((values.diff() > 0).all()):
            raise FormatError(f"{name} does not rise from each step to the next")

    @override
    def placeholder(self, layer: LayerShape, x: Tensor) -> Tensors:
        return {
            TIMESTEP: as_bits(torch.arange(self.steps, dtype=torch.float32)),
            SCALE: as_bits(torch.ones(self.steps)),
            ZERO_POINT: torch.zeros(self.steps, dtype=torch.uint8),
        }

    @override
    def part_weights(
        self, weight: Tensor, layer: LayerShape, tensors: Tensors
    ) -> Mapping[str, Tensor]:
        return {"scaled": weight}

    @override
    def join_weights(
        self, weights: Mapping[str, Tensor], layer: LayerShape, tensors: Tensors
    ) -> Tensor:
        return weights["scaled"]

    @override
    def part_inputs(self, x: Tensor, layer: LayerShape, tensors: Tensors) -> Mapping[str, Tensor]:
        return {"scaled": x}

    @override
    def join_inputs(
        self, x: Tensor, inputs: Mapping[str, Tensor], layer: LayerShape, tensors: Tensors
    ) -> Tensor:
        return inputs["scaled"]

    @override
    def forward(
        self, x: Tensor, parts: Parts, layer: LayerShape, tensors: Tensors, bias: Tensor | None
    ) -> Tensor:
        return parts["scaled"](x, *parameters_at(tensors[NOW], tensors), bias)


def parameters_at(timestep: Tensor, tensors: Tensors) -> tuple[Tensor, Tensor]:
    """Scale and whole zero point of the nearest calibrated timesteps, float32 [n].

    Args:
        timestep: float32 [n].
        tensors: as the structure stores them.
    """
    index = nearest_step(from_bits(tensors[TIMESTEP], torch.float32), timestep)
    scale = from_bits(tensors[SCALE], torch.float32)[index]
    return scale, tensors[ZERO_POINT][index].float()


def step_places(structures: tuple[Structure, ...], layer: LayerShape) -> tuple[str, ...]:
    """Paths of each quantizer's tables among the tensors of a layer, see `Place`."""
    found = places(structures, layer)
    return tuple(each.path for each in found if isinstance(each.structure, StepScales))


def check_step_scales(activation: ActivationFormat, tensors: Tensors) -> None:
    """Refuse tables of scales and zero points that no calibration can have written.

    Raises:
        FormatError: naming the tensor.
    """
    scale = from_bits(tensors[SCALE], torch.float32)
    InputQuantizer(activation, scale, tensors[ZERO_POINT]).check(SCALE, ZERO_POINT)
