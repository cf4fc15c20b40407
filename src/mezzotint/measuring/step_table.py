"""A quantizer's scales for each timestep as plain values, which can be compared and hashed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from mezzotint.formats import from_bits
from mezzotint.plan import LayerShape, Structure, Tensors
from mezzotint.runtime import nearest_step
from mezzotint.runtime.composition import at_top, under
from mezzotint.runtime.structures.step_scales import SCALE, TIMESTEP, ZERO_POINT, step_places


@dataclass(frozen=True)
class StepTable:
    """Scale and zero point of one quantizer's input at each calibrated timestep.

    Attributes:
        timesteps: rising; float32 values.
        scales: positive; float32 values.
        zero_points: codes of zero.
    """

    timesteps: tuple[float, ...]
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]

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
        paths = step_places(structures, layer)
        return tuple(cls._of(at_top(under(tensors, path) if path else tensors)) for path in paths)

    @classmethod
    def _of(cls, tensors: Tensors) -> Self:
        times, scales = (from_bits(tensors[n], torch.float32).tolist() for n in (TIMESTEP, SCALE))
        return cls(tuple(times), tuple(scales), tuple(tensors[ZERO_POINT].tolist()))

    def at(self, timestep: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """Scale and whole zero point of the nearest calibrated timesteps, float32 [n].

        Args:
            timestep: float32 [n].
            device: of the result.
        """
        times, scales, zeros = (
            torch.tensor(each, dtype=torch.float32, device=device)
            for each in (self.timesteps, self.scales, self.zero_points)
        )
        index = nearest_step(times, timestep)
        return scales[index], zeros[index]
