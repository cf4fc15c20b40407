"""Layers that hold nothing but packed weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from mezzotint.errors import PlanError
from mezzotint.formats import Shape
from mezzotint.plan import Choice
from mezzotint.runtime.geometry import ConvGeometry
from mezzotint.runtime.layer import QuantLayer
from mezzotint.runtime.operands import Conv2d, Linear, Operation


def operation_of(layer: nn.Linear | nn.Conv2d) -> Operation:
    """The operation of a float layer, as kernels know it."""
    if isinstance(layer, nn.Linear):
        return Linear()
    return Conv2d(ConvGeometry.of(_attributes(layer), layer.kernel_size))


def check_padding_mode(layer: nn.Conv2d) -> None:
    """Raise PlanError where the layer pads with anything but zeros."""
    if layer.padding_mode != "zeros":
        raise PlanError(f"padding_mode {layer.padding_mode!r} is not supported, only 'zeros'")


class QuantLinear(QuantLayer):
    """y = x Wᵀ + b with W packed; x is [..., in_features]."""

    operation = Linear()

    @property
    def in_features(self) -> int:
        """Size of the last dimension of the input."""
        return self.weight_shape[1]

    @property
    def out_features(self) -> int:
        """Size of the last dimension of the output."""
        return self.weight_shape[0]

    @classmethod
    def like(cls, layer: nn.Linear, choice: Choice, part: Shape | None = None) -> QuantLinear:
        """An empty layer of the same geometry, on the same device.

        With `part`, the shape of a part of the weight: without bias.
        """
        shape, bias = (tuple(layer.weight.shape), layer.bias) if part is None else (part, None)
        with layer.weight.device:
            return cls(shape, choice, bias)

    @override
    def stock(self, weight: Tensor, bias: nn.Parameter | None) -> nn.Linear:
        with torch.device("meta"):
            layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
        return _holding(layer, weight, bias)


class QuantConv2d(QuantLayer):
    """A 2-D convolution with packed weight; x is [n, c, h, w]."""

    operation: Conv2d

    def __init__(
        self,
        weight_shape: Shape,
        choice: Choice,
        bias: Tensor | None,
        attributes: Mapping[str, Any],
    ) -> None:
        """Allocate; `attributes`: stride, padding, dilation and groups, as of a Conv2d."""
        super().__init__(weight_shape, choice, bias)
        self.attributes = dict(attributes)
        self.operation = Conv2d(ConvGeometry.of(attributes, weight_shape[2:]))

    @classmethod
    def like(cls, layer: nn.Conv2d, choice: Choice, part: Shape | None = None) -> QuantConv2d:
        """An empty layer of the same geometry, on the same device.

        With `part`, the shape of a part of the weight: without bias.
        """
        check_padding_mode(layer)
        shape, bias = (tuple(layer.weight.shape), layer.bias) if part is None else (part, None)
        with layer.weight.device:
            return cls(shape, choice, bias, _attributes(layer))

    @property
    def in_channels(self) -> int:
        """Channels of the input."""
        return self.weight_shape[1] * self.operation.groups

    @property
    def out_channels(self) -> int:
        """Channels of the output."""
        return self.weight_shape[0]

    @override
    def stock(self, weight: Tensor, bias: nn.Parameter | None) -> nn.Conv2d:
        outputs, inputs, *kernel = weight.shape
        with torch.device("meta"):
            layer = nn.Conv2d(
                inputs * self.operation.groups,
                outputs,
                (kernel[0], kernel[1]),
                bias=bias is not None,
                **self.attributes,
            )
        return _holding(layer, weight, bias)


def quant_like(
    layer: nn.Linear | nn.Conv2d, choice: Choice, part: Shape | None = None
) -> QuantLayer:
    """An empty `QuantLinear` or `QuantConv2d` like `layer`, or like a part of it.

    Raises:
        PlanError: a convolution has a padding mode of its own.
    """
    if isinstance(layer, nn.Linear):
        return QuantLinear.like(layer, choice, part)
    return QuantConv2d.like(layer, choice, part)


_LayerT = TypeVar("_LayerT", nn.Linear, nn.Conv2d)


def _attributes(layer: nn.Conv2d) -> dict[str, Any]:
    names = ("stride", "padding", "dilation", "groups")
    return {name: getattr(layer, name) for name in names}


def _holding(layer: _LayerT, weight: Tensor, bias: nn.Parameter | None) -> _LayerT:
    layer.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        layer.bias = bias
    return layer
