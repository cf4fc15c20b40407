"""What all layers of one quantizer have in common."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from mezzotint.errors import PlanError
from mezzotint.formats import (
    ActivationFormat,
    Shape,
    TensorSpec,
    WeightFormat,
    as_bits,
    from_bits,
)
from mezzotint.plan import Choice, Encoding
from mezzotint.rounding import rounding_named
from mezzotint.runtime.forms import WeightForms
from mezzotint.runtime.geometry import ConvGeometry
from mezzotint.runtime.kernels import (
    KernelRefusedError,
    Operation,
    Request,
    Selection,
    select_kernel,
)
from mezzotint.runtime.layer_grid import layer_grid
from mezzotint.runtime.opaque import handle_of, packed_layer, runs_opaque
from mezzotint.runtime.packed import GridValues, InputRange, PackedLayer

#: The dimensions of an input that share one dynamic scale; the first holds features or channels.
TOKEN_DIMS: dict[Operation, tuple[int, ...]] = {"linear": (-1,), "conv2d": (-3, -2, -1)}

_exporting = getattr(torch.compiler, "is_exporting", lambda: False)


class QuantLayer(WeightForms, PackedLayer):
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
        self._handle = handle_of(self)

    def weight_tensors(self) -> dict[str, Tensor]:
        """The packed weight, under the names of the format's layout."""
        layout = self.weight_format.layout(self.weight_shape)
        return {name: self.stored(f"weight_{name}") for name in layout}

    @property
    @override
    def parts(self) -> tuple[QuantLayer, ...]:
        return (self,)

    @override
    def load_weight(
        self,
        weight: Tensor,
        encoding: Encoding,
        ranges: Sequence[InputRange] = (),
        values: Sequence[GridValues] = (),
    ) -> None:
        grid = layer_grid(self.weight_format, weight, encoding.search)
        if values:
            chosen = values[0].values.to(weight.device)
            grid = grid.with_parameters(values[0].parameters)
            stored = self.weight_format.store_values(grid, chosen)
        else:
            rounding = rounding_named(encoding.rounding)
            stored = self.weight_format.store(grid, rounding(weight, grid))
        for name, tensor in stored.items():
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
                self.operation,
                device,
                self.weight_format,
                self.activation_format,
                self.conv_geometry,
                math.prod(self.weight_shape[1:]),
            )
            self._selections[key] = select_kernel(request, differentiable=differentiable)
        return self._selections[key]

    @override
    def forward(self, x: Tensor) -> Tensor:
        device = x.device.type
        # What is exported must outlive this layer, and gradients must pass: both need plain torch.
        plain = _exporting() or (x.requires_grad and torch.is_grad_enabled())
        traced = torch.compiler.is_compiling() or type(x) is not Tensor
        if traced and not plain and runs_opaque(self._handle, device):
            result: Tensor = packed_layer(x, self._handle)
            return result
        return self.run_on(device, x, differentiable=plain)

    def run_on(self, device: str, x: Tensor, *, differentiable: bool = False) -> Tensor:
        """The output by the kernel chosen for a device, or by the next where that one refuses."""
        try:
            return self.selection_on(device, differentiable=differentiable).kernel.run(self, x)
        except KernelRefusedError:
            self._selections.clear()
            self.release()
            self.forget_unpacked()
        return self.run_on(device, x, differentiable=differentiable)

    @property
    @abstractmethod
    def memory_format(self) -> torch.memory_format:
        """How outputs are laid out under compilers."""

    @abstractmethod
    def empty_output(self, x: Tensor) -> Tensor:
        """A tensor of the output's shape, dtype and layout, without values."""

    @property
    def conv_geometry(self) -> ConvGeometry | None:
        """How the windows of a convolution lie; None for a linear layer."""
        return None

    @property
    def groups(self) -> int:
        """Of channels that are convolved apart."""
        return 1 if self.conv_geometry is None else self.conv_geometry.groups

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
        return super().__getstate__() | {"_selections": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._handle = handle_of(self)


def part_tensors(choice: Choice, weight_shape: Shape) -> dict[str, TensorSpec]:
    """What a `QuantLayer` stores of a weight of that shape, in the formats of `choice`."""
    weight_format = choice.weight_format
    if weight_format is None:
        return {}
    specs = {f"weight_{name}": spec for name, spec in weight_format.layout(weight_shape).items()}
    if choice.static:
        specs["input_scale"] = TensorSpec((1,), torch.int32)
        specs["input_zero_point"] = TensorSpec((1,), torch.uint8)
    return specs
