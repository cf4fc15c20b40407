"""What all layers of one quantizer have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from mezzotint.errors import PlanError
from mezzotint.formats import (
    MINMAX,
    ActivationFormat,
    RangeSearch,
    Shape,
    TensorSpec,
    as_bits,
    from_bits,
)
from mezzotint.plan import Choice
from mezzotint.rounding import nearest
from mezzotint.runtime.kernels import KernelRefusedError, Request, Selection, select_kernel
from mezzotint.runtime.layer_grid import layer_grid
from mezzotint.runtime.opaque import handle_of, packed_layer, runs_opaque
from mezzotint.runtime.operands import InputQuantizer, Operation
from mezzotint.runtime.packed import InputRange, PackedLayer, check_input_ranges
from mezzotint.runtime.stored import StoredWeight

_exporting = getattr(torch.compiler, "is_exporting", lambda: False)


class QuantLayer(StoredWeight, PackedLayer):
    """A layer whose weight is stored in a `WeightFormat`; a kernel computes it.

    Buffers `weight_*` are exactly the format's layout; with a static activation format,
    `input_scale` (float32 as int32 bits) and `input_zero_point` are stored too.
    """

    #: The computation, with its geometry.
    operation: Operation

    def __init__(self, weight_shape: Shape, choice: Choice, bias: Tensor | None) -> None:
        """Allocate on the device of `bias`'s factory context; fill with `load_weight`."""
        super().__init__(weight_shape, choice, bias)
        weight_format = choice.weight_format
        if weight_format is None:
            raise PlanError("a layer whose weight stays floating is not replaced")
        self.activation_format: ActivationFormat | None = choice.activation_format
        layout = weight_format.layout(weight_shape)
        self.set_weight(weight_format, {name: spec.zeros() for name, spec in layout.items()})
        for name, spec in input_tensors(choice).items():
            self.register_buffer(name, spec.zeros())
        self._selections: dict[tuple[str, bool], Selection] = {}
        self._handle = handle_of(self)

    @property
    @override
    def parts(self) -> tuple[QuantLayer, ...]:
        return (self,)

    @override
    def load_weight(
        self, weight: Tensor, search: RangeSearch = MINMAX, ranges: Sequence[InputRange] = ()
    ) -> None:
        check_input_ranges(self.choice, ranges)
        grid = layer_grid(self.weight_format, weight, search)
        stored = self.weight_format.store(grid, nearest(weight, grid))
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
        return self.packed_weight.dequantized(dtype)

    @property
    def input_quantizer(self) -> InputQuantizer | None:
        """The rounding of the input, as it is stored; None where the input stays floating."""
        activation = self.activation_format
        if activation is None or not activation.static:
            return None if activation is None else InputQuantizer(activation)
        scale = from_bits(self.get_buffer("input_scale"), torch.float32)
        return InputQuantizer(activation, scale, self.get_buffer("input_zero_point"))

    def round_input(self, x: Tensor) -> Tensor:
        """`x` rounded to the activation format (unchanged when that is `float`)."""
        quantizer = self.input_quantizer
        return x if quantizer is None else quantizer.rounded(x, self.operation.token_dims)

    @property
    def selection(self) -> Selection:
        """The kernel that serves this layer on its present device."""
        return self.selection_on(self.weight_device)

    def request_on(self, device: str) -> Request:
        """The kernel that the layer needs on a device."""
        formats = self.weight_format, self.weight_shape, self.activation_format
        return Request(self.operation, device, *formats)

    def selection_on(self, device: str, *, differentiable: bool = False) -> Selection:
        """The kernel that serves this layer on a device; chosen once for each."""
        key = device, differentiable
        if key not in self._selections:
            request = self.request_on(device)
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
        selection = self.selection_on(device, differentiable=plain)
        if traced:
            # Tracers see no cache; what they trace unpacks the weight at every call.
            prepared = selection.kernel.prepare(self.packed_weight, self.operation)
            return selection.kernel.run(prepared, x, self.input_quantizer, self.bias)
        return self._computed(selection, x)

    def _computed(self, selection: Selection, x: Tensor) -> Tensor:
        """The output by a selected kernel, or by the next that accepts where it refuses."""
        kernel = selection.kernel
        try:
            prepared = self.prepared_by(kernel, self.operation)
            return kernel.run(prepared, x, self.input_quantizer, self.bias)
        except KernelRefusedError:
            self._selections.clear()
            self.release()
        return self._computed(self.selection_on(x.device.type), x)

    def runs_opaque(self, device: str) -> bool:
        """Whether compilers should take the layer as one operation on a device."""
        return self.selection_on(device).kernel.opaque

    def opaque_output(self, x: Tensor) -> Tensor:
        """The output for an input with values, laid out as `empty_output`."""
        y = self._computed(self.selection_on(x.device.type), x)
        return y.contiguous(memory_format=self.operation.memory_format) if y.ndim == 4 else y

    def empty_output(self, x: Tensor) -> Tensor:
        """A tensor of the output's shape, dtype and layout, without values."""
        return self.operation.empty_output(x, self.weight_shape[0])

    @property
    def channel_dim(self) -> int:
        """The dimension of features or channels, from the end."""
        return self.operation.channel_dim

    @abstractmethod
    def stock(self, weight: Tensor, bias: nn.Parameter | None) -> nn.Module:
        """A stock layer of this geometry that holds `weight`, of however many input channels."""

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_selections": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._handle = handle_of(self)


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
