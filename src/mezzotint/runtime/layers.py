"""Layers that hold nothing but packed weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from mezzotint.errors import FormatError, PlanError
from mezzotint.formats import (
    MINMAX,
    ActivationFormat,
    RangeSearch,
    Shape,
    TensorSpec,
    WeightFormat,
    as_bits,
    from_bits,
)
from mezzotint.plan import Choice
from mezzotint.runtime.kernels import Operation, Request, Selection, select_kernel

#: The dimensions of an input that share one dynamic scale.
TOKEN_DIMS: dict[Operation, tuple[int, ...]] = {"linear": (-1,), "conv2d": (-3, -2, -1)}


@dataclass(frozen=True)
class InputRange:
    """Calibrated lowest and highest input of a layer, for static activation formats."""

    low: float
    high: float


def check_input_range(activation: ActivationFormat | None, seen: InputRange | None) -> None:
    """Raise FormatError where a static activation format lacks its calibrated range."""
    if activation is not None and activation.static and seen is None:
        raise FormatError(f"{activation} needs a calibrated input range")


class QuantLayer(nn.Module, ABC):
    """A layer whose weight is stored in a `WeightFormat`.

    Buffers `weight_*` are exactly the format's layout; with a static activation format,
    `input_scale` (float32 as int32 bits) and `input_zero_point` are stored too. All of them are
    integer tensors, so casting the model leaves them alone. The bias stays a floating parameter.
    """

    operation: Operation

    def __init__(self, weight_shape: Shape, choice: Choice, bias: Tensor | None) -> None:
        """Allocate on the device of `bias`'s factory context; fill with `load_weight`."""
        super().__init__()
        weight_format = choice.weight_format
        if weight_format is None:
            raise PlanError("a layer whose weight stays floating is not replaced")
        self.weight_shape = weight_shape
        self.choice = choice
        self.weight_format: WeightFormat = weight_format
        self.activation_format: ActivationFormat | None = choice.activation_format
        for name, spec in stored_tensors(choice, weight_shape).items():
            self.register_buffer(name, torch.zeros(spec.shape, dtype=spec.dtype))
        self.bias = (
            None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)
        )
        self._selections: dict[str, Selection] = {}

    def weight_tensors(self) -> dict[str, Tensor]:
        """The packed weight, under the names of the format's layout."""
        layout = self.weight_format.layout(self.weight_shape)
        return {name: self.get_buffer(f"weight_{name}") for name in layout}

    def load_weight(
        self, weight: Tensor, search: RangeSearch = MINMAX, input_range: InputRange | None = None
    ) -> None:
        """Quantize and pack `weight`, and store the static input range where one is needed."""
        check_input_range(self.activation_format, input_range)
        for name, tensor in self.weight_format.encode(weight, search).items():
            self.register_buffer(f"weight_{name}", tensor)
        activation = self.activation_format
        if activation is not None and activation.static and input_range is not None:
            low, high = input_range.low, input_range.high
            scale, zero_point = activation.range_parameters(low, high, weight.device)
            self.register_buffer("input_scale", as_bits(scale))
            self.register_buffer("input_zero_point", zero_point.to(torch.uint8))

    def dequantized_weight(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The weight as the kernels see it, of `weight_shape`."""
        return self.weight_format.decode(self.weight_tensors(), self.weight_shape).to(dtype)

    def round_input(self, x: Tensor) -> Tensor:
        """`x` rounded to the activation format (unchanged when that is `float`)."""
        activation = self.activation_format
        if activation is None:
            return x
        if activation.static:
            scale = from_bits(self.get_buffer("input_scale"), torch.float32)
            zero_point = self.get_buffer("input_zero_point").float()
        else:
            scale, zero_point = activation.dynamic_parameters(x, TOKEN_DIMS[self.operation])
        return activation.roundtrip(x, scale, zero_point)

    @property
    def selection(self) -> Selection:
        """The kernel that serves this layer on its present device; chosen once per device."""
        device = self.get_buffer(next(iter(self._buffers))).device.type
        if device not in self._selections:
            request = Request(self.operation, device, self.weight_format, self.activation_format)
            self._selections[device] = select_kernel(request)
        return self._selections[device]

    @override
    def forward(self, x: Tensor) -> Tensor:
        return self.selection.kernel.run(self, x)

    @abstractmethod
    def apply_float(self, x: Tensor, weight: Tensor) -> Tensor:
        """The floating-point operation, bias included."""

    @abstractmethod
    def to_float(self, dtype: torch.dtype = torch.float32) -> nn.Module:
        """A stock layer with the dequantized weight, in the dtype of the bias, or else `dtype`."""

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_selections": {}}

    @override
    def extra_repr(self) -> str:
        return f"{tuple(self.weight_shape)}, {self.choice}"


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
    def like(cls, layer: nn.Linear, choice: Choice) -> QuantLinear:
        """An empty layer of the same geometry, on the same device."""
        with layer.weight.device:
            return cls(tuple(layer.weight.shape), choice, layer.bias)

    @override
    def apply_float(self, x: Tensor, weight: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return functional.linear(x, weight, bias)

    @override
    def to_float(self, dtype: torch.dtype = torch.float32) -> nn.Linear:
        with torch.device("meta"):
            layer = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None)
        return _with_weight(self, layer, dtype)


class QuantConv2d(QuantLayer):
    """A 2-D convolution with packed weight; x is [n, c, h, w]."""

    operation: Operation = "conv2d"

    def __init__(
        self, weight_shape: Shape, choice: Choice, bias: Tensor | None, geometry: Mapping[str, Any]
    ) -> None:
        super().__init__(weight_shape, choice, bias)
        self.geometry = dict(geometry)

    @classmethod
    def like(cls, layer: nn.Conv2d, choice: Choice) -> QuantConv2d:
        """An empty layer of the same geometry, on the same device."""
        if layer.padding_mode != "zeros":
            raise PlanError(f"padding_mode {layer.padding_mode!r} is not supported, only 'zeros'")
        geometry = {name: getattr(layer, name) for name in _GEOMETRY}
        with layer.weight.device:
            return cls(tuple(layer.weight.shape), choice, layer.bias, geometry)

    @property
    def in_channels(self) -> int:
        """Channels of the input."""
        return self.weight_shape[1] * int(self.geometry["groups"])

    @property
    def out_channels(self) -> int:
        """Channels of the output."""
        return self.weight_shape[0]

    @override
    def apply_float(self, x: Tensor, weight: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return functional.conv2d(x, weight, bias, **self.geometry)

    @override
    def to_float(self, dtype: torch.dtype = torch.float32) -> nn.Conv2d:
        with torch.device("meta"):
            layer = nn.Conv2d(
                self.in_channels,
                self.out_channels,
                (self.weight_shape[2], self.weight_shape[3]),
                bias=self.bias is not None,
                **self.geometry,
            )
        return _with_weight(self, layer, dtype)


_LayerT = TypeVar("_LayerT", nn.Linear, nn.Conv2d)

_GEOMETRY = ("stride", "padding", "dilation", "groups")


def stored_tensors(choice: Choice, weight_shape: Shape) -> dict[str, TensorSpec]:
    """Names, shapes and dtypes of everything a layer stores under `choice`, but its bias."""
    weight_format, activation = choice.weight_format, choice.activation_format
    if weight_format is None:
        return {}
    specs = {f"weight_{name}": spec for name, spec in weight_format.layout(weight_shape).items()}
    if activation is not None and activation.static:
        specs["input_scale"] = TensorSpec((1,), torch.int32)
        specs["input_zero_point"] = TensorSpec((1,), torch.uint8)
    return specs


def _with_weight(source: QuantLayer, layer: _LayerT, dtype: torch.dtype) -> _LayerT:
    dtype = dtype if source.bias is None else source.bias.dtype
    layer.weight = nn.Parameter(source.dequantized_weight(dtype), requires_grad=False)
    if source.bias is not None:
        layer.bias = source.bias
    return layer.train(source.training)
