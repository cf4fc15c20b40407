"""The computation of a layer with one quantizer: which kernel, on which prepared weight."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from mezzotint.formats import ActivationFormat, from_bits
from mezzotint.runtime.kernels import KernelRefusedError, Request, Selection, select_kernel
from mezzotint.runtime.opaque import handle_of, packed_layer, runs_opaque
from mezzotint.runtime.operands import InputQuantizer, Operation
from mezzotint.runtime.stored import StoredWeight

_exporting = getattr(torch.compiler, "is_exporting", lambda: False)


class QuantizedPart(StoredWeight, ABC):
    """A stored weight that a kernel multiplies by quantized inputs.

    A packed layer has one of them or several. With a static activation format, buffers
    `input_scale` (float32 as int32 bits) and `input_zero_point` are stored.
    """

    #: The computation, with its geometry.
    operation: Operation
    activation_format: ActivationFormat | None
    bias: nn.Parameter | None
    _selections: dict[tuple[str, bool], Selection]
    _handle: int

    def set_up_kernels(self) -> None:
        """Choose no kernel yet, and be known to compilers."""
        self._selections = {}
        self._handle = handle_of(self)

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
        return self.selection_on(self.weight_device.type)

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

    # The name is that of nn.Linear and nn.Conv2d: some models pass their input by keyword.
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """The output for an input, in its dtype, bias included.

        Raises:
            RuntimeError: the input is not floating, as of a floating layer.
        """
        x, device = input, input.device.type
        if not x.is_floating_point():
            raise RuntimeError(f"a packed layer takes floating inputs, but got {x.dtype}")
        # Exported code must outlive this layer, and gradients must pass: both need plain torch.
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
        """Return whether compilers should take the layer as one operation on a device."""
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
