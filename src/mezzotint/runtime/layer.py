"""Layers of one quantizer: how their weights and ranges are stored."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import override

from mezzotint.errors import PlanError
from mezzotint.formats import Shape, TensorSpec, as_bits
from mezzotint.plan import Choice, Encoding
from mezzotint.runtime.encode import encoded_part
from mezzotint.runtime.packed import PackedLayer, PartCalibration
from mezzotint.runtime.part import QuantizedPart


class QuantLayer(QuantizedPart, PackedLayer):
    """A layer whose weight is stored in a `WeightFormat`; a kernel computes it.

    Buffers `weight_*` are exactly the format's layout; with a static activation format,
    `input_scale` (float32 as int32 bits) and `input_zero_point` are stored too.
    """

    def __init__(self, weight_shape: Shape, choice: Choice, bias: Tensor | None) -> None:
        """Allocate on the device of `bias`'s factory context; fill with `load_weight`."""
        super().__init__(weight_shape, choice, bias)
        weight_format = choice.weight_format
        if weight_format is None:
            raise PlanError("a layer whose weight stays floating is not replaced")
        self.activation_format = choice.activation_format
        layout = weight_format.layout(weight_shape)
        self.set_weight(weight_format, {name: spec.zeros() for name, spec in layout.items()})
        for name, spec in input_tensors(choice).items():
            self.register_buffer(name, spec.zeros())
        self.set_up_kernels()

    @property
    @override
    def parts(self) -> tuple[QuantizedPart, ...]:
        return (self,)

    @override
    def load_weight(
        self,
        weight: Tensor,
        encoding: Encoding,
        calibrations: Sequence[PartCalibration],
    ) -> None:
        (calibration,) = calibrations
        stored = calibration.encoded
        if stored is None:
            stored = encoded_part(self.weight_format, weight, encoding, calibration)
        for name, tensor in stored.items():
            self.register_buffer(f"weight_{name}", tensor)
        activation = self.activation_format
        if activation is not None and activation.static:
            assert calibration.range is not None, "checked, see check_input_ranges"
            low, high = calibration.range.low, calibration.range.high
            scale, zero_point = activation.range_parameters(low, high, weight.device)
            self.register_buffer("input_scale", as_bits(scale))
            self.register_buffer("input_zero_point", zero_point.to(torch.uint8))

    @override
    def dequantized_weight(self, dtype: torch.dtype = torch.float32) -> Tensor:
        return self.packed_weight.dequantized(dtype)


def input_tensors(choice: Choice) -> dict[str, TensorSpec]:
    """The stored range of an input; empty unless `choice` is static."""
    if not choice.static:
        return {}
    return {
        "input_scale": TensorSpec((1,), torch.int32),
        "input_zero_point": TensorSpec((1,), torch.uint8),
    }


def part_tensors(choice: Choice, weight_shape: Shape) -> dict[str, TensorSpec]:
    """The tensors that a `QuantLayer` stores of a weight of that shape, without its bias."""
    weight_format = choice.weight_format
    if weight_format is None:
        return {}
    specs = {f"weight_{name}": spec for name, spec in weight_format.layout(weight_shape).items()}
    return specs | input_tensors(choice)
