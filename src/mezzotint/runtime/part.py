"""The computation of a layer with one quantizer: which kernel, on which prepared weight."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from mezzotint.errors import UsageError
from mezzotint.formats import ActivationFormat, from_bits
from mezzotint.runtime.kernels import KernelRefusedError, Request, Selection, select_kernel
from mezzotint.runtime.opaque import (
    handle_of,
    packed_layer,
    packed_layer_given,
    runs_opaque,
)
from mezzotint.runtime.operands import GivenScales, InputQuantizer, Operation
from mezzotint.runtime.stored import StoredWeight

_exporting = getattr(torch.compiler, "is_exporting", lambda: False)


class QuantizedPart(StoredWeight, ABC):
    """A stored weight that a kernel multiplies by quantized inputs.

    A packed layer has one of them or several. With a static activation format, buffers
    `input_scale` (float32 as int32 bits) and `input_zero_point` are stored. With one of several
    scales, as `uint4/step`, they are given with each input, see `GivenScales`.
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
        """The rounding of the input, as it is stored; None where the input stays floating.

        Raises:
            UsageError: it is given with each input.
        """
        activation = self.activation_format
        if activation is None or activation.dynamic:
            return None if activation is None else InputQuantizer(activation)
        if activation.per_step:
            raise UsageError(
                f"a part of a layer of {activation} was run without the scale of its timestep; run "
                "the layer that it is a part of"
            )
        scale = from_bits(self.get_buffer("input_scale"), torch.float32)
        return InputQuantizer(activation, scale, self.get_buffer("input_zero_point"))

    def quantizer_of(self, x: Tensor, given: GivenScales | None) -> InputQuantizer | None:
        """The rounding of an input: as it is stored, or as it is given.

        Raises:
            UsageError: parts of the batch have scales of their own, but it cannot be divided.
        """
        if given is None:
            return self.input_quantizer
        assert self.activation_format is not None
        batch, scales = self.operation.batch(x), len(given.scale)
        if scales > 1 and not _traced(x) and (x.device.type == "cpu" or batch % scales):
            given = given.shared()
            scales = len(given.scale)
        if scales > 1 and batch % scales:
            raise UsageError(
                f"a batch of {scales} timesteps met a layer whose input of shape {tuple(x.shape)} "
                "has no part for each; call the denoiser with one timestep at a time"
            )
        return InputQuantizer(self.activation_format, given.scale, given.zero_point)

    def round_input(self, x: Tensor, *scales: Tensor | None) -> Tensor:
        """`x` rounded to the activation format (unchanged when that is `float`)."""
        quantizer = self.quantizer_of(x, _given(scales))
        return x if quantizer is None else quantizer.rounded(x, self.operation)

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
    def forward(self, input: Tensor, *scales: Tensor | None) -> Tensor:  # noqa: A002
        """The output for an input, in its dtype, bias included.

        Args:
            input: floating.
            scales: the fields of a `GivenScales`, where a structure gives them.

        Raises:
            RuntimeError: the input is not floating, as of a floating layer.
            UsageError: as `quantizer_of`.
        """
        x, device, given = input, input.device.type, _given(scales)
        if not x.is_floating_point():
            raise RuntimeError(f"a packed layer takes floating inputs, but got {x.dtype}")
        # Exported code must outlive this layer, and gradients must pass: both need plain torch.
        plain = _exporting() or (x.requires_grad and torch.is_grad_enabled())
        traced = _traced(x)
        if traced and not plain and runs_opaque(self._handle, device):
            return self._opaque(x, given)
        selection = self.selection_on(device, differentiable=plain)
        if traced:
            # Tracers see no cache; what they trace unpacks the weight at every call.
            prepared = selection.kernel.prepare(self.packed_weight, self.operation)
            quantizer = self.quantizer_of(x, given)
            return selection.kernel.run(prepared, x, quantizer, self._bias(given))
        return self._computed(selection, x, given)

    def _opaque(self, x: Tensor, given: GivenScales | None) -> Tensor:
        """The output as one operation, which compilers do not look into."""
        result: Tensor
        if given is None:
            result = packed_layer(x, self._handle)
        else:
            result = packed_layer_given(x, given.scale, given.zero_point, given.bias, self._handle)
        return result

    def _computed(self, selection: Selection, x: Tensor, given: GivenScales | None) -> Tensor:
        """The output by a selected kernel, or by the next that accepts where it refuses."""
        kernel, quantizer = selection.kernel, self.quantizer_of(x, given)
        try:
            # Others may put other tensors in their place meanwhile.
            prepared, _held = self.prepared_by(kernel, self.operation)
            return kernel.run(prepared, x, quantizer, self._bias(given))
        except KernelRefusedError:
            self._selections.clear()
            self.release()
        return self._computed(self.selection_on(x.device.type), x, given)

    def _bias(self, given: GivenScales | None) -> Tensor | None:
        return self.bias if given is None else given.bias

    def runs_opaque(self, device: str) -> bool:
        """Return whether compilers should take the layer as one operation on a device."""
        return self.selection_on(device).kernel.opaque

    def opaque_output(self, x: Tensor, given: GivenScales | None = None) -> Tensor:
        """The output for an input with values, laid out as `empty_output`."""
        y = self._computed(self.selection_on(x.device.type), x, given)
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


def _traced(x: Tensor) -> bool:
    """Return whether a compiler or another tracer stands between, for which `x` has no values."""
    return torch.compiler.is_compiling() or type(x) is not Tensor


def _given(scales: tuple[Tensor | None, ...]) -> GivenScales | None:
    """The fields of a `GivenScales`, or none at all."""
    if not scales:
        return None
    scale, zero_point, bias = scales
    assert scale is not None
    assert zero_point is not None
    return GivenScales(scale, zero_point, bias)
