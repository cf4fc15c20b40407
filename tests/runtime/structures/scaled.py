"""Structures that the package does not know: a power of two for every input channel.

W = (W · 2^e)(x / 2^e). `InputScale` takes the exponents from the weight alone, `Evened` from
the inputs as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mezzotint.errors import CalibrationError, FormatError, PlanError
from mezzotint.formats import TensorSpec
from mezzotint.plan import (
    LayerShape,
    Observer,
    Parts,
    Reader,
    Structure,
    Tensors,
    register_structure,
)


@dataclass(frozen=True)
class _Scaled(Structure):
    part_names = ("scaled",)

    @property
    def label(self) -> str:
        return f"scaled inputs ({self.kind})"

    def part_shapes(self, layer: LayerShape) -> Mapping[str, LayerShape]:
        if layer.groups != 1:
            raise PlanError(f"a convolution in groups has no {self.kind}; leave {self.kind} out")
        return {"scaled": layer}

    def tensors(self, layer: LayerShape) -> Mapping[str, TensorSpec]:
        return {"exponent": TensorSpec((layer.in_channels,), torch.int8)}

    def check_tensor(self, name: str, tensor: Tensor) -> None:
        if int(tensor.abs().max()) > 16:
            raise FormatError(f"{name} holds values beyond 16")

    def part_weights(
        self, weight: Tensor, layer: LayerShape, tensors: Tensors
    ) -> Mapping[str, Tensor]:
        return {"scaled": weight * self._of_weight(layer, tensors).to(weight.dtype)}

    def join_weights(
        self, weights: Mapping[str, Tensor], layer: LayerShape, tensors: Tensors
    ) -> Tensor:
        weight = weights["scaled"]
        return weight / self._of_weight(layer, tensors).to(weight.dtype)

    def part_inputs(self, x: Tensor, layer: LayerShape, tensors: Tensors) -> Mapping[str, Tensor]:
        return {"scaled": x / layer.along_channels(_scale(tensors)).to(x.dtype)}

    def join_inputs(
        self, x: Tensor, inputs: Mapping[str, Tensor], layer: LayerShape, tensors: Tensors
    ) -> Tensor:
        return inputs["scaled"] * layer.along_channels(_scale(tensors)).to(x.dtype)

    def forward(
        self, x: Tensor, parts: Parts, layer: LayerShape, tensors: Tensors, bias: Tensor | None
    ) -> Tensor:
        scaled = self.part_inputs(x, layer, tensors)["scaled"]
        return layer.with_bias(parts["scaled"](scaled), bias)

    def _of_weight(self, layer: LayerShape, tensors: Tensors) -> Tensor:
        return _scale(tensors).view(1, -1, *(1,) * (len(layer.weight) - 2))


@register_structure
@dataclass(frozen=True)
class InputScale(_Scaled):
    """Columns of the weight become about equally large, by at most 2^limit."""

    limit: int = 4

    kind = "input_scale"

    def derived(self, weight: Tensor, layer: LayerShape, tensors: Tensors) -> Tensors:
        return {"exponent": _exponent(1 / _peaks(weight, 1), self.limit)}


@register_structure
@dataclass(frozen=True)
class Evened(_Scaled):
    """Columns of the weight and channels of the input become about equally large."""

    kind = "evened"
    calibrated = frozenset({"exponent"})

    def observer(self, reader: Reader, siblings: Sequence[Reader]) -> Observer:
        return _Peaks(reader.weight, reader.layer)


@dataclass
class _Peaks:
    weight: Tensor
    layer: LayerShape
    highest: Tensor | None = field(default=None, init=False)

    def observe(self, x: Tensor, output: Callable[[], Tensor]) -> None:
        found = _peaks(x, x.ndim + self.layer.channel_dim)
        self.highest = found if self.highest is None else torch.maximum(self.highest, found)

    def tensors(self) -> Tensors:
        if self.highest is None:
            raise CalibrationError("no recorded call reaches it")
        return {"exponent": _exponent((self.highest / _peaks(self.weight, 1)).sqrt(), 16)}


def _peaks(values: Tensor, dim: int) -> Tensor:
    """The largest absolute value of every channel."""
    return values.detach().abs().transpose(0, dim).flatten(1).amax(1).float()


def _exponent(scale: Tensor, limit: int) -> Tensor:
    return scale.log2().round().clamp(-limit, limit).to(torch.int8)


def _scale(tensors: Tensors) -> Tensor:
    return tensors["exponent"].float().exp2()
