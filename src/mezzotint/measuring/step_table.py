"""A quantizer's scales for each timestep as plain values, which can be compared and hashed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from mezzotint.formats import ActivationFormat, from_bits
from mezzotint.plan import LayerShape, Structure, Tensors
from mezzotint.runtime import StepScales, StepWidths, nearest_step
from mezzotint.runtime.composition import at_top, under
from mezzotint.runtime.layer_tensors import places
from mezzotint.runtime.operands import along_batch
from mezzotint.runtime.structures.step_scales import SCALE, TIMESTEP, ZERO_POINT
from mezzotint.runtime.structures.step_widths import within_widths


@dataclass(frozen=True)
class StepTable:
    """Scale and zero point of one quantizer's input at each calibrated timestep.

    Attributes:
        timesteps: rising; float32 values.
        scales: positive; float32 values.
        zero_points: codes of zero.
        bits: of the codes at each; empty where all are as wide as the format.
    """

    timesteps: tuple[float, ...]
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    bits: tuple[int, ...] = ()

    @classmethod
    def each_of(
        cls, structures: tuple[Structure, ...], layer: LayerShape, tensors: Tensors
    ) -> tuple[Self, ...]:
        """The tables of a layer's quantizers, in the order of their inputs.

        Args:
            structures: of the layer, `StepScales` the last of them.
            layer: its shape.
            tensors: of the structures, by their names within the layer.

        Raises:
            FormatError: a table has yet to be calibrated; it is named.
        """
        return tuple(
            cls._of(place.structure, under(tensors, place.path) if place.path else tensors)
            for place in places(structures, layer)
            if isinstance(place.structure, StepScales)
        )

    @classmethod
    def _of(cls, structure: StepScales, known: Tensors) -> Self:
        tensors = at_top(known)
        times, scales = (from_bits(tensors[n], torch.float32).tolist() for n in (TIMESTEP, SCALE))
        bits = structure.bits if isinstance(structure, StepWidths) else ()
        return cls(tuple(times), tuple(scales), tuple(tensors[ZERO_POINT].tolist()), bits)

    def rounded(self, x: Tensor, timestep: Tensor, activation: ActivationFormat) -> Tensor:
        """The values of the codes of `x` by the scales of the nearest calibrated timesteps.

        Args:
            x: input of the quantizer, float32.
            timestep: float32 [1], or one for each sample.
            activation: the codes.
        """
        times, scales, zeros, bits = (
            torch.tensor(each, dtype=torch.float32, device=x.device)
            for each in (self.timesteps, self.scales, self.zero_points, self.bits)
        )
        index = nearest_step(times, timestep)
        scale, zero_point = scales[index], zeros[index]
        if self.bits:
            x = within_widths(x, scale, zero_point, bits[index])
        return activation.roundtrip(x, along_batch(scale, x), along_batch(zero_point, x))
