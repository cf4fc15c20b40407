"""A layer as the C functions know it: one structure for all its calls, and one call of them."""

from __future__ import annotations

import ctypes
import math
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mezzotint.formats import ActivationFormat, Segment, Shape
from mezzotint.runtime.cpu.library import fields, function, run_layer, threads_for
from mezzotint.runtime.cpu.native import DTYPES
from mezzotint.runtime.cpu.panels import Panels, described_weight, kernel_of
from mezzotint.runtime.cpu.units import Unit
from mezzotint.runtime.geometry import ConvGeometry
from mezzotint.runtime.operands import Conv2d, InputQuantizer, Operation
from mezzotint.runtime.pages import make_room

#: A linear layer is a convolution of images of one pixel.
_ONE_PIXEL = ConvGeometry((1, 1))
#: Products that take the time of one byte quantized or unpacked.
_PRODUCTS_PER_BYTE = 32
#: Scratch of at most as many bytes stays for the next call of a thread.
_KEPT_SCRATCH = 4 << 20
#: Shapes of inputs that a layer remembers; a denoiser meets one or two.
_KEPT_SHAPES = 16


class _Layer(ctypes.Structure):
    _fields_: ClassVar = fields(
        pointers="segments order",
        longs="segment_count channels groups outputs kernel_h kernel_w stride_h stride_w pad_top "
        "pad_left dilation_h dilation_w",
        ints="unit low high shift dynamic own_zeros",
    )


class _Call(ctypes.Structure):
    _fields_: ClassVar = [
        *fields(pointers="layer x bias out scratch"),
        *fields(longs="images height width out_height out_width x_stride"),
        *fields(ints="planes x_dtype bias_dtype out_dtype zero", floats="scale"),
        *fields(ints="threads"),
    ]


@dataclass(frozen=True)
class _Shaped:
    """The fields that all calls share whose inputs have one shape, layout and dtype.

    Attributes:
        call: a structure whose pointers are to be filled in.
        scratch: bytes that a call takes.
        out: shape of the output.
        out_bytes: of the output.
        threads: that share a call.
    """

    call: _Call
    scratch: int
    out: tuple[int, ...]
    out_bytes: int
    threads: int


class BoundLayer:
    """A weight, an operation and the format of its inputs, for the C functions.

    It holds addresses. The tensors that they are of must outlive it, or at least every call.
    """

    def __init__(
        self,
        segments: Iterable[tuple[Segment, Panels | None]],
        order: Tensor | None,
        operation: Operation,
        shape: Shape,
        unit: Unit,
    ) -> None:
        self.operation, self.shape, self.unit = operation, shape, unit
        self._segments, kept = described_weight(segments)
        self._order = None if order is None else order.to(torch.int32)
        #: The tensors that the addresses are of.
        self.tensors = tuple(kept)
        channels, *kernel = kernel_of(shape)
        geometry = operation.geometry if isinstance(operation, Conv2d) else _ONE_PIXEL
        (top, _), (left, _) = geometry.padding
        self._layer = _Layer(
            segments=ctypes.addressof(self._segments),
            order=None if self._order is None else self._order.data_ptr(),
            segment_count=len(self._segments), channels=channels, groups=operation.groups,
            outputs=shape[0], kernel_h=kernel[0], kernel_w=kernel[1],
            stride_h=geometry.stride[0], stride_w=geometry.stride[1], pad_top=top, pad_left=left,
            dilation_h=geometry.dilation[0], dilation_w=geometry.dilation[1], unit=unit.number,
        )  # fmt: skip
        self._formats: dict[ActivationFormat, _Layer] = {}
        self._shapes: dict[tuple[object, ...], _Shaped] = {}

    def output(self, x: Tensor, quantizer: InputQuantizer, bias: Tensor | None) -> Tensor | None:
        """The output for an input that was met before, or fits; None where it does not fit.

        Args:
            x: float32 or bfloat16, dense: rows of features, or images of either layout.
            quantizer: of a single scale, where that is calibrated.
            bias: dense, float32 or bfloat16.
        """
        key = x.shape, x.stride(), x.dtype, quantizer.format, torch.get_num_threads()
        shaped = self._shapes.get(key)
        if shaped is None:
            shaped = self._shaped(x, quantizer.format)
            if shaped is None:
                return None
            if len(self._shapes) >= _KEPT_SHAPES:
                self._shapes.clear()
            self._shapes[key] = shaped
        make_room(shaped.out_bytes)
        out = self._empty(shaped.out, x.dtype)
        scratch = _scratch(shaped.scratch)
        call = _Call.from_buffer_copy(shaped.call)
        call.x, call.out, call.scratch = x.data_ptr(), out.data_ptr(), scratch.data_ptr()
        if bias is not None:
            call.bias, call.bias_dtype = bias.data_ptr(), DTYPES[bias.dtype]
        if quantizer.scale is not None:
            call.scale = quantizer.scale.item()
            call.zero = 0 if quantizer.zero_point is None else int(quantizer.zero_point)
        run_layer(ctypes.addressof(call), shaped.threads)
        return out

    def _empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        if isinstance(self.operation, Conv2d):
            layout = torch.channels_last
            return torch.empty(shape, dtype=dtype, device="cpu", memory_format=layout)
        return torch.empty(shape, dtype=dtype, device="cpu")

    def _shaped(self, x: Tensor, activation: ActivationFormat) -> _Shaped | None:
        if x.dtype not in DTYPES or not x.numel() or not self.operation.takes(x, self.shape):
            return None
        found = self._image_shape(x) if isinstance(self.operation, Conv2d) else self._row_shape(x)
        if found is None:
            return None
        call, out = found
        rows = call.images * call.out_height * call.out_width
        products = rows * math.prod(self.shape)
        threads = threads_for(max(rows, self.shape[0]), x.numel() + products // _PRODUCTS_PER_BYTE)
        call.layer = ctypes.addressof(self._layer_for(activation))
        call.x_dtype = call.out_dtype = DTYPES[x.dtype]
        call.threads = threads
        size = function("mz_layer_bytes")(ctypes.addressof(call))
        return _Shaped(call, size, out, rows * self.shape[0] * x.element_size(), threads)

    def _layer_for(self, activation: ActivationFormat) -> _Layer:
        """The structure with what an input format adds."""
        if activation not in self._formats:
            layer = _Layer.from_buffer_copy(self._layer)
            layer.low, layer.high = activation.limits
            layer.shift, layer.dynamic = -layer.low, activation.dynamic
            layer.own_zeros = activation.dynamic and not activation.symmetric
            self._formats[activation] = layer
        return self._formats[activation]

    def _row_shape(self, x: Tensor) -> tuple[_Call, tuple[int, ...]] | None:
        features = x.shape[-1]
        if features > 1 and x.stride(-1) != 1:
            return None
        try:
            rows = x.view(-1, features)
        except RuntimeError:
            return None
        call = _Call(
            images=len(rows), height=1, width=1, out_height=1, out_width=1,
            x_stride=max(rows.stride(0), 0) if len(rows) > 1 else features,
        )  # fmt: skip
        return call, (*x.shape[:-1], self.shape[0])

    def _image_shape(self, x: Tensor) -> tuple[_Call, tuple[int, ...]] | None:
        assert isinstance(self.operation, Conv2d)
        if x.ndim != 4:
            return None
        count, channels, height, width = x.shape
        last = x.is_contiguous(memory_format=torch.channels_last)
        if not last and not x.is_contiguous():
            return None
        out_height, out_width = self.operation.geometry.output_size(height, width)
        call = _Call(
            images=count, height=height, width=width, out_height=out_height, out_width=out_width,
            x_stride=channels, planes=not last,
        )  # fmt: skip
        return call, (count, self.shape[0], out_height, out_width)


class _Kept(threading.local):
    """Scratch of each of Python's threads."""

    memory: Tensor | None = None


_KEPT = _Kept()


def _scratch(size: int) -> Tensor:
    """Memory for one call of this thread."""
    memory = _KEPT.memory
    if memory is not None and memory.shape[0] >= size:
        return memory
    memory = torch.empty(size, dtype=torch.uint8, device="cpu")
    if size <= _KEPT_SCRATCH:
        _KEPT.memory = memory
    return memory
