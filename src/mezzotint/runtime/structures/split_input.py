"""A quantizer for the first input channels, another one for the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from mezzotint.errors import PlanError
from mezzotint.plan import (
    LayerShape,
    Parts,
    Structure,
    Tensors,
    check_count,
    register_structure,
)
from mezzotint.runtime.structures.constant_tokens import ConstantTokens


@register_structure
@dataclass(frozen=True)
class SplitInput(Structure):
    """Input channels before and after one of them have quantizers of their own.

    y = W₁x₁ + W₂x₂ + b, for concatenated inputs of different ranges. Nothing is stored beside the
    parts. MixDQ (arXiv 2405.17873), shortcut splitting.

    Attributes:
        first: channels of the first part.

    Raises:
        FormatError: `first` is no whole number from 1 to 65535.
    """

    first: int

    kind = "split"
    part_names = ("first", "second")
    left_out_by = "shortcuts=none"

    def __post_init__(self) -> None:
        check_count(self, "first", self.first)

    @property
    @override
    def label(self) -> str:
        return f"split at {self.first}"

    @override
    def refuse(self, inner: Structure) -> str | None:
        if isinstance(inner, ConstantTokens):
            return f"a token has the channels of both parts; put {inner.kind} first"
        return None

    @override
    def part_shapes(self, layer: LayerShape) -> Mapping[str, LayerShape]:
        if layer.groups != 1:
            raise PlanError(
                f"a convolution of {layer.groups} groups cannot be split; leave split out"
            )
        outputs, inputs, *kernel = layer.weight
        if self.first >= inputs:
            raise PlanError(
                f"split: first is {self.first}, but there are {inputs} input channels; give a "
                "number below that, or leave split out"
            )
        return {
            "first": LayerShape((outputs, self.first, *kernel)),
            "second": LayerShape((outputs, inputs - self.first, *kernel)),
        }

    @override
    def part_weights(
        self, weight: Tensor, layer: LayerShape, tensors: Tensors
    ) -> Mapping[str, Tensor]:
        return {"first": weight[:, : self.first], "second": weight[:, self.first :]}

    @override
    def join_weights(
        self, weights: Mapping[str, Tensor], layer: LayerShape, tensors: Tensors
    ) -> Tensor:
        return torch.cat([weights["first"], weights["second"]], 1)

    @override
    def part_inputs(self, x: Tensor, layer: LayerShape, tensors: Tensors) -> Mapping[str, Tensor]:
        dim = layer.channel_dim
        rest = x.shape[dim] - self.first
        return {"first": x.narrow(dim, 0, self.first), "second": x.narrow(dim, self.first, rest)}

    @override
    def join_inputs(
        self, x: Tensor, inputs: Mapping[str, Tensor], layer: LayerShape, tensors: Tensors
    ) -> Tensor:
        return torch.cat([inputs["first"], inputs["second"]], layer.channel_dim)

    @override
    def forward(
        self, x: Tensor, parts: Parts, layer: LayerShape, tensors: Tensors, bias: Tensor | None
    ) -> Tensor:
        seen = self.part_inputs(x, layer, tensors)
        y = parts["first"](seen["first"]) + parts["second"](seen["second"])
        return layer.with_bias(y, bias)
