"""Layers that hold nothing but packed weights."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from mezzotint.errors import PlanError
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
from mezzotint.runtime.opaque import handle_of, packed_layer, runs_opaque
from mezzotint.runtime.packed import InputRange, PackedLayer, check_input_ranges

#: The dimensions of an input that share one dynamic scale; the first holds features or channels.
TOKEN_DIMS: dict[Operation, tuple[int, ...]] = {"linear": (-1,), "conv2d": (-3, -2, -1)}

_CODES = "weight_codes"


class Kept(Protocol):
    """Codes in a kernel's own layout."""

    def codes(self) -> Tensor:
        """As they are stored."""


def operation_of(layer: nn.Linear | nn.Conv2d) -> Operation:
    """What the kernels call the computation of a float layer."""
    return "linear" if isinstance(layer, nn.Linear) else "conv2d"


class QuantLayer(PackedLayer):
    """A layer whose weight is stored in a `WeightFormat`; a kernel computes it.

    Buffers `weight_*` are exactly the format's layout; with a static activation format,
    `input_scale` (float32 as int32 bits) and `input_zero_point` are stored too.
    """

    operation: Operation

    def __init__(self, weight_shape: Shape, choice: Choice, bias: Tensor | None) -> None:
        """Allocate on the device of `bias`'s factory context; fill with `load_weight`."""
        super().__init__(weight_shape, choice, bias)
        weight_format = choice.weight_format
        if weight_format is None:
            raise PlanError("a layer whose weight stays floating is not replaced")
        self.weight_format: WeightFormat = weight_format
        self.activation_format: ActivationFormat | None = choice.activation_format
        for name, spec in part_tensors(choice, weight_shape).items():
            self.register_buffer(name, torch.zeros(spec.shape, dtype=spec.dtype))
        self._selections: dict[tuple[str, bool], Selection] = {}
        self._kept: Kept | None = None
        self._handle = handle_of(self)

    @property
    def kept(self) -> Kept | None:
        """What stands in for the codes at present."""
        if self._kept is not None and not self.get_buffer(_CODES).is_meta:
            # Somebody put other codes in their place.
            self._kept = None
        return self._kept

    def keep(self, kept: Kept) -> None:
        """Hold the codes as a kernel wants them, instead of as they are stored.

        Whoever asks for the stored tensors gets them as before.
        """
        self._kept = kept
        self._buffers[_CODES] = torch.empty_like(self.get_buffer(_CODES), device="meta")

    def release(self) -> None:
        """Hold the codes as they are stored."""
        kept = self.kept
        if kept is not None:
            self._buffers[_CODES] = kept.codes()
            self._kept = None

    def weight_tensors(self) -> dict[str, Tensor]:
        """The packed weight, under the names of the format's layout."""
        self.release()
        layout = self.weight_format.layout(self.weight_shape)
        return {name: self.get_buffer(f"weight_{name}") for name in layout}

    @property
    @override
    def parts(self) -> tuple[QuantLayer, ...]:
        return (self,)

    @override
    def load_weight(
        self, weight: Tensor, search: RangeSearch = MINMAX, ranges: Sequence[InputRange] = ()
    ) -> None:
        check_input_ranges(self.choice, ranges)
        for name, tensor in self.weight_format.encode(weight, search).items():
            self.register_buffer(f"weight_{name}", tensor)
        activation = self.activation_format
        if activation is not None and activation.static:
            low, high = ranges[0].low, ranges[0].high
            scale, zero_point = activation.range_parameters(low, high, weight.device)
            self.register_buffer("input_scale", as_bits(scale))
            self.register_buffer("input_zero_point", zero_point.to(torch.uint8))

    @override
    def dequantized_weight(self, dtype: torch.dtype = torch.float32) -> Tensor:
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
        """The kernel that serves this layer on its present device."""
        device = "cpu" if self.kept else self.get_buffer(next(iter(self._buffers))).device.type
        return self.selection_on(device)

    def selection_on(self, device: str, *, differentiable: bool = False) -> Selection:
        """The kernel that serves this layer on a device; chosen once for each."""
        key = device, differentiable
        if key not in self._selections:
            request = Request(
                self.operation, device, self.weight_format, self.activation_format, self.groups
            )
            self._selections[key] = select_kernel(request, differentiable=differentiable)
        return self._selections[key]

    @override
    def forward(self, x: Tensor) -> Tensor:
        device = x.device.type
        if torch.compiler.is_compiling() and runs_opaque(self._handle, device):
            result: Tensor = packed_layer(x, self._handle)
            return result
        selection = self.selection_on(device)
        if selection.kernel.opaque and x.requires_grad and torch.is_grad_enabled():
            selection = self.selection_on(device, differentiable=True)
        return selection.kernel.run(self, x)

    @property
    @abstractmethod
    def memory_format(self) -> torch.memory_format:
        """How outputs are laid out under compilers."""

    @abstractmethod
    def empty_output(self, x: Tensor) -> Tensor:
        """A tensor of the output's shape, dtype and layout, without values."""

    @property
    def groups(self) -> int:
        """Of channels that are convolved apart."""
        return 1

    @property
    def channel_dim(self) -> int:
        """The dimension of features or channels, from the end."""
        return TOKEN_DIMS[self.operation][0]

    def shaped_bias(self, dtype: torch.dtype) -> Tensor:
        """The bias, which there must be, as it is added to outputs."""
        assert self.bias is not None
        return self.bias.to(dtype).view(-1, *(1,) * (-self.channel_dim - 1))

    @abstractmethod
    def apply_float(self, x: Tensor, weight: Tensor) -> Tensor:
        """The floating-point operation, bias included."""

    @abstractmethod
    def stock(self, weight: Tensor, bias: nn.Parameter | None) -> nn.Module:
        """A stock layer of this geometry that holds `weight`, of however many input channels."""

    def __getstate__(self) -> dict[str, Any]:
        self.release()
        return self.__dict__ | {"_selections": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._handle = handle_of(self)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self.release()
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.release()
        super()._save_to_state_dict(*args, **kwargs)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.release()
        super()._load_from_state_dict(*args, **kwargs)


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

    @classmethod
    def like(cls, layer: nn.Conv2d, choice: Choice, part: Shape | None = None) -> QuantConv2d:
        """An empty layer of the same geometry, on the same device.

        With `part`, the shape of a part of the weight: without bias.
        """
        if layer.padding_mode != "zeros":
            raise PlanError(f"padding_mode {layer.padding_mode!r} is not supported, only 'zeros'")
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
        if self.geometry["padding"] == "same":
            return height, width
        padding = (0, 0) if self.geometry["padding"] == "valid" else self.geometry["padding"]
        parts = zip(
            (height, width), padding, self.geometry["dilation"], self.weight_shape[2:],
            self.geometry["stride"], strict=True,
        )  # fmt: skip
        high, wide = (
            (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
            for size, pad, dilation, kernel, stride in parts
        )
        return high, wide

    @property
    @override
    def groups(self) -> int:
        return int(self.geometry["groups"])

    @property
    @override
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last

    @override
    def empty_output(self, x: Tensor) -> Tensor:
        shape = *x.shape[:-3], self.out_channels, *self.output_size(x.shape[-2], x.shape[-1])
        return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)

    @override
    def apply_float(self, x: Tensor, weight: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return functional.conv2d(x, weight, bias, **self.geometry)

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


def part_tensors(choice: Choice, weight_shape: Shape) -> dict[str, TensorSpec]:
    """What a `QuantLayer` stores of a weight of that shape, in the formats of `choice`."""
    weight_format, activation = choice.weight_format, choice.activation_format
    if weight_format is None:
        return {}
    specs = {f"weight_{name}": spec for name, spec in weight_format.layout(weight_shape).items()}
    if activation is not None and activation.static:
        specs["input_scale"] = TensorSpec((1,), torch.int32)
        specs["input_zero_point"] = TensorSpec((1,), torch.uint8)
    return specs


def _holding(layer: _LayerT, weight: Tensor, bias: nn.Parameter | None) -> _LayerT:
    layer.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        layer.bias = bias
    return layer
