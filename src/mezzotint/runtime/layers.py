"""Layers that hold nothing but packed weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from mezzotint.errors import PlanError
from mezzotint.formats import Shape
from mezzotint.plan import Choice
from mezzotint.runtime.convolution import conv2d
from mezzotint.runtime.geometry import ConvGeometry
from mezzotint.runtime.kernels import Operation
from mezzotint.runtime.layer import QuantLayer


def operation_of(layer: nn.Linear | nn.Conv2d) -> Operation:
    """What the kernels call the computation of a float layer."""
    return "linear" if isinstance(layer, nn.Linear) else "conv2d"


def check_padding_mode(layer: nn.Conv2d) -> None:
    """Raise PlanError where the layer pads with anything but zeros."""
    if layer.padding_mode != "zeros":
        raise PlanError(f"padding_mode {layer.padding_mode!r} is not supported, only 'zeros'")


class QuantLinear(QuantLayer):
    """y = x Wᵀ + b with W packed; x is [..., in_features]."""

    operation: Operation = "linear"

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

    @property
    @override
    def memory_format(self) -> torch.memory_format:
        return torch.contiguous_format

    @override
    def empty_output(self, x: Tensor) -> Tensor:
        return x.new_empty(*x.shape[:-1], self.out_features)

    @override
    def apply_float(self, x: Tensor, weight: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return functional.linear(x, weight, bias)

    @override
    def stock(self, weight: Tensor, bias: nn.Parameter | None) -> nn.Linear:
        with torch.device("meta"):
            layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
        return _holding(layer, weight, bias)


class QuantConv2d(QuantLayer):
    """A 2-D convolution with packed weight; x is [n, c, h, w]."""

    operation: Operation = "conv2d"

    def __init__(
        self, weight_shape: Shape, choice: Choice, bias: Tensor | None, geometry: Mapping[str, Any]
    ) -> None:
        super().__init__(weight_shape, choice, bias)
        self.geometry = dict(geometry)
        self._conv_geometry = ConvGeometry.of(geometry, weight_shape[2:])

    @classmethod
    def like(cls, layer: nn.Conv2d, choice: Choice, part: Shape | None = None) -> QuantConv2d:
        """An empty layer of the same geometry, on the same device.

        With `part`, the shape of a part of the weight: without bias.
        """
        check_padding_mode(layer)
        geometry = {name: getattr(layer, name) for name in _GEOMETRY}
        shape, bias = (tuple(layer.weight.shape), layer.bias) if part is None else (part, None)
        with layer.weight.device:
            return cls(shape, choice, bias, geometry)

    @property
    def in_channels(self) -> int:
        """Channels of the input."""
        return self.weight_shape[1] * int(self.geometry["groups"])

    @property
    def out_channels(self) -> int:
        """Channels of the output."""
        return self.weight_shape[0]

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the output for an input of that size."""
        return self.conv_geometry.output_size(height, width)

    @property
    @override
    def conv_geometry(self) -> ConvGeometry:
        return self._conv_geometry

    @property
    @override
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last

    @override
    def empty_output(self, x: Tensor) -> Tensor:
        shape = *x.shape[:-3], self.out_channels, *self.output_size(x.shape[-2], x.shape[-1])
        batch = torch.empty(
            (1,) * (4 - x.ndim) + shape,
            dtype=x.dtype,
            device=x.device,
            memory_format=torch.channels_last,
        )
        return batch if x.ndim == 4 else batch.squeeze(0)

    @override
    def apply_float(self, x: Tensor, weight: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return conv2d(x, weight, bias, self.conv_geometry)

    @override
    def stock(self, weight: Tensor, bias: nn.Parameter | None) -> nn.Conv2d:
        outputs, inputs, *kernel = weight.shape
        with torch.device("meta"):
            layer = nn.Conv2d(
                inputs * int(self.geometry["groups"]),
                outputs,
                (kernel[0], kernel[1]),
                bias=bias is not None,
                **self.geometry,
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

_GEOMETRY = ("stride", "padding", "dilation", "groups")


def _holding(layer: _LayerT, weight: Tensor, bias: nn.Parameter | None) -> _LayerT:
    layer.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        layer.bias = bias
    return layer
