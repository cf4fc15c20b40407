"""Layers that hold nothing but packed weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from mezzotint.errors import PlanError, UsageError
from mezzotint.formats import Shape
from mezzotint.plan import Choice
from mezzotint.runtime.geometry import ConvGeometry
from mezzotint.runtime.layer import QuantLayer
from mezzotint.runtime.operands import Conv2d, Linear, Operation


def operation_of(layer: nn.Linear | nn.Conv2d) -> Operation:
    """The operation of a float layer, as kernels know it."""
    if isinstance(layer, nn.Linear):
        return Linear()
    return Conv2d(ConvGeometry.of(attributes_of(layer), layer.kernel_size))


def check_padding_mode(layer: nn.Conv2d) -> None:
    """Raise PlanError where the layer pads with anything but zeros."""
    if layer.padding_mode != "zeros":
        raise PlanError(f"padding_mode {layer.padding_mode!r} is not supported, only 'zeros'")


class LinearPart(QuantLayer):
    """y = x Wᵀ + b with W packed; x is [..., in_features]. A part of a structured layer."""

    operation = Linear()

    @classmethod
    def like(cls, layer: nn.Linear, choice: Choice, part: Shape | None = None) -> Self:
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


class QuantLinear(LinearPart, nn.Linear):  # type: ignore[misc, override]  # weight is lazy, bias optional
    """A packed Linear without structures, which is one for other libraries as well."""

    def __init__(self, weight_shape: Shape, choice: Choice, bias: Tensor | None) -> None:
        super().__init__(weight_shape, choice, bias)
        self.out_features, self.in_features = weight_shape


class Conv2dPart(QuantLayer):
    """A 2-D convolution with packed weight; x is [n, c, h, w]. A part of a structured layer."""

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
    def like(cls, layer: nn.Conv2d, choice: Choice, part: Shape | None = None) -> Self:
        """An empty layer of the same geometry, on the same device.

        With `part`, the shape of a part of the weight: without bias.
        """
        check_padding_mode(layer)
        shape, bias = (tuple(layer.weight.shape), layer.bias) if part is None else (part, None)
        with layer.weight.device:
            return cls(shape, choice, bias, attributes_of(layer))

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


class FixedGeometry(nn.Conv2d):
    """A convolution whose geometry is part of its packed weight's kernel, and cannot be changed."""

    @override
    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_conv_forward" or (name in _GEOMETRY and name in vars(self)):
            raise UsageError(
                f"{name}: the geometry of a packed convolution is fixed; change it in the floating "
                "model and keep the layer floating, or call dequantize() on the model first"
            )
        super().__setattr__(name, value)


class QuantConv2d(Conv2dPart, FixedGeometry):  # type: ignore[misc, override]  # weight is lazy, bias optional
    """A packed Conv2d without structures, which is one for other libraries as well."""

    def __init__(
        self,
        weight_shape: Shape,
        choice: Choice,
        bias: Tensor | None,
        attributes: Mapping[str, Any],
    ) -> None:
        super().__init__(weight_shape, choice, bias, attributes)
        set_attributes(self, weight_shape, attributes)


def set_attributes(layer: nn.Conv2d, weight_shape: Shape, attributes: Mapping[str, Any]) -> None:
    """Give a convolution that nn.Conv2d did not make all the attributes of one that it did."""
    layer.groups = int(attributes["groups"])
    layer.out_channels = weight_shape[0]
    layer.in_channels = weight_shape[1] * layer.groups
    layer.kernel_size = (weight_shape[2], weight_shape[3])
    layer.stride, layer.padding = attributes["stride"], attributes["padding"]
    layer.dilation, layer.padding_mode = attributes["dilation"], "zeros"
    layer.transposed, layer.output_padding = False, (0, 0)


def quant_like(
    layer: nn.Linear | nn.Conv2d, choice: Choice, part: Shape | None = None
) -> QuantLayer:
    """An empty `QuantLinear` or `QuantConv2d` like `layer`, or a part of one.

    A part is no nn.Linear or nn.Conv2d: libraries would take it for a layer beside its own.

    Raises:
        PlanError: a convolution has a padding mode of its own.
    """
    if isinstance(layer, nn.Linear):
        return (QuantLinear if part is None else LinearPart).like(layer, choice, part)
    return (QuantConv2d if part is None else Conv2dPart).like(layer, choice, part)


_GEOMETRY = frozenset(
    {"stride", "padding", "dilation", "groups", "kernel_size", "padding_mode", "transposed"}
)

_LayerT = TypeVar("_LayerT", nn.Linear, nn.Conv2d)


def attributes_of(layer: nn.Conv2d) -> dict[str, Any]:
    """Stride, padding, dilation and groups of a convolution, as nn.Conv2d takes them."""
    names = ("stride", "padding", "dilation", "groups")
    return {name: getattr(layer, name) for name in names}


def _holding(layer: _LayerT, weight: Tensor, bias: nn.Parameter | None) -> _LayerT:
    layer.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        layer.bias = bias
    return layer
