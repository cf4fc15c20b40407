"""Packed weights by floating inputs, without ever holding a large layer dequantized."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from typing_extensions import override

from mezzotint.runtime.convolution import checked_conv2d
from mezzotint.runtime.cpu import processor
from mezzotint.runtime.cpu.tiles import check_on_cpu, floats, stored_bias, tiles
from mezzotint.runtime.geometry import ConvGeometry
from mezzotint.runtime.kernels import AsStored, Kernel, Prepared, Request
from mezzotint.runtime.operands import Conv2d, InputQuantizer, Operation, PackedWeight
from mezzotint.runtime.pages import make_room


class FloatKernel(Kernel):
    """Dequantizes a few output channels at a time, in bfloat16 where the processor multiplies it.

    The input is rounded to its format first. Half precision, and bfloat16 on other processors, is
    computed in float32.
    """

    name = "cpu-float"
    arithmetic: Literal["float"] = "float"
    device = "cpu"
    opaque = True

    @override
    def refuse(self, request: Request) -> str | None:
        return None

    @override
    def prepare(
        self, weight: PackedWeight, operation: Operation, *, unpack: bool = False
    ) -> Prepared:
        check_on_cpu(*weight.tensors.values())
        return AsStored(weight, operation)

    @override
    def run(
        self, prepared: Prepared, x: Tensor, quantizer: InputQuantizer | None, bias: Tensor | None
    ) -> Tensor:
        assert isinstance(prepared, AsStored)
        check_on_cpu(bias, None if quantizer is None else quantizer.scale)
        weight, operation = prepared.weight, prepared.operation
        rounded = x if quantizer is None else quantizer.rounded(x, operation)
        rounded = rounded.to(processor.compute_dtype(x.dtype))
        if operation.groups > 1 or not x.numel():
            # A tile would hold parts of groups; such weights are small.
            values = weight.dequantized(rounded.dtype)
            shift = None if bias is None else bias.to(rounded.dtype)
            if isinstance(operation, Conv2d):
                return checked_conv2d(rounded, values, shift, operation.geometry).to(x.dtype)
            return operation.apply(rounded, values, shift).to(x.dtype)
        if isinstance(operation, Conv2d):
            y = _conv2d(weight, rounded, bias, operation.geometry)
        else:
            y = _linear(weight, rounded, bias)
        if weight.order is not None:
            y = y.index_select(operation.channel_dim, weight.order)
        return y.to(x.dtype)


def _linear(weight: PackedWeight, x: Tensor, bias: Tensor | None) -> Tensor:
    """Straight into the columns of one output; a second copy of it would cost as much as a tile."""
    rows = x.reshape(-1, x.shape[-1])
    shift, outputs = stored_bias(bias, weight.order, x.dtype), weight.shape[0]
    make_room(len(rows) * outputs * x.element_size())
    out = torch.empty(len(rows), outputs, dtype=x.dtype, device="cpu")
    for tile in tiles(weight, x.element_size()):
        values, columns = floats(tile, x.dtype).t(), slice(tile.start, tile.stop)
        if shift is None:
            torch.mm(rows, values, out=out[:, columns])
        else:
            torch.addmm(shift[columns], rows, values, out=out[:, columns])
    return out.view(*x.shape[:-1], -1)


def _conv2d(weight: PackedWeight, x: Tensor, bias: Tensor | None, geometry: ConvGeometry) -> Tensor:
    shift, outputs = stored_bias(bias, weight.order, x.dtype), []
    for tile in tiles(weight, x.element_size()):
        values = floats(tile, x.dtype).view(tile.rows, *weight.shape[1:])
        part = None if shift is None else shift[tile.start : tile.stop]
        outputs.append(checked_conv2d(x, values, part, geometry))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, -3)
