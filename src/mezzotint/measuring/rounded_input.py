"""Inputs of a floating layer, rounded as its packed layer would round them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mezzotint.formats import ActivationFormat
from mezzotint.measuring.step_table import StepTable
from mezzotint.models import layer_input
from mezzotint.plan import Choice, Tensors
from mezzotint.runtime import (
    InputQuantizer,
    InputRange,
    TimestepReader,
    join_inputs,
    operation_of,
    part_inputs,
    shape_of,
)


@dataclass(frozen=True, eq=False)
class RoundedInput:
    """A pre-hook that rounds what each quantizer of a packed layer would see, by its own range.

    Attributes:
        choice: whose activation format and structures count.
        ranges: of the quantizers, where they are static.
        tensors: of the structures, as `own_tensors` gives them.
        reader: tells the timestep, where scales depend on it.
    """

    choice: Choice
    ranges: Sequence[InputRange]
    tensors: Tensors
    reader: TimestepReader | None

    def __call__(
        self, layer: nn.Linear | nn.Conv2d, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The layer's arguments: its input, rounded."""
        x = layer_input(args, kwargs)
        activation, structures = self.choice.activation_format, self.choice.structures
        if activation is None:
            return args, kwargs
        shape, operation = shape_of(layer), operation_of(layer)
        rounded = []
        for index, part in enumerate(part_inputs(x, structures, shape, self.tensors)):
            if activation.per_step:
                rounded.append(self._at_step(part, index, layer).to(x.dtype))
                continue
            quantizer = self._quantizer(activation, index, x.device)
            rounded.append(quantizer.rounded(part, operation).to(x.dtype))
        return (join_inputs(x, rounded, structures, shape, self.tensors),), {}

    def _quantizer(
        self, activation: ActivationFormat, index: int, device: torch.device
    ) -> InputQuantizer:
        if not activation.static:
            return InputQuantizer(activation)
        one = self.ranges[index]
        return InputQuantizer(activation, *activation.range_parameters(one.low, one.high, device))

    def _at_step(self, x: Tensor, index: int, layer: nn.Linear | nn.Conv2d) -> Tensor:
        activation = self.choice.activation_format
        assert activation is not None, "asked for where inputs are rounded"
        assert self.reader is not None, "layers with a scale for each timestep have one"
        table = StepTable.each_of(self.choice.structures, shape_of(layer), self.tensors)[index]
        return table.rounded(x.float(), self.reader.timestep, activation)
