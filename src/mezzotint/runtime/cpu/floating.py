"""Packed weights by floating inputs, without ever holding a large layer dequantized."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from typing_extensions import override

from mezzotint.runtime.convolution import checked_conv2d
from mezzotint.runtime.cpu import processor
from mezzotint.runtime.cpu.weights import (
    check_on_cpu,
    floats,
    stored_bias,
    stored_order,
    tiles,
)
from mezzotint.runtime.kernels import Kernel, Request, register_kernel
from mezzotint.runtime.layer import QuantLayer
from mezzotint.runtime.layers import QuantConv2d
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
    def run(self, layer: QuantLayer, x: Tensor) -> Tensor:
        check_on_cpu(layer)
        rounded = layer.round_input(x).to(processor.compute_dtype(x.dtype))
        if layer.groups > 1 or not x.numel():
            # A tile would hold parts of groups; such weights are small.
            return layer.apply_float(rounded, layer.dequantized_weight(rounded.dtype)).to(x.dtype)
        y = _conv2d(layer, rounded) if isinstance(layer, QuantConv2d) else _linear(layer, rounded)
        order = stored_order(layer)
        if order is not None:
            y = y.index_select(layer.channel_dim, order)
        return y.to(x.dtype)


def _linear(layer: QuantLayer, x: Tensor) -> Tensor:
    """Straight into the columns of one output; a second copy of it would cost as much as a tile."""
    rows = x.reshape(-1, x.shape[-1])
    bias = stored_bias(layer, x.dtype)
    outputs = layer.weight_shape[0]
    make_room(len(rows) * outputs * x.element_size())
    out = torch.empty(len(rows), outputs, dtype=x.dtype, device="cpu")
    for tile in tiles(layer, x.element_size()):
        weight, columns = floats(tile, x.dtype).t(), slice(tile.start, tile.stop)
        if bias is None:
            torch.mm(rows, weight, out=out[:, columns])
        else:
            torch.addmm(bias[columns], rows, weight, out=out[:, columns])
    return out.view(*x.shape[:-1], -1)


def _conv2d(layer: QuantConv2d, x: Tensor) -> Tensor:
    bias, outputs = stored_bias(layer, x.dtype), []
    for tile in tiles(layer, x.element_size()):
        weight = floats(tile, x.dtype).view(tile.rows, *layer.weight_shape[1:])
        part = None if bias is None else bias[tile.start : tile.stop]
        outputs.append(checked_conv2d(x, weight, part, layer.conv_geometry))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, layer.channel_dim)


register_kernel(FloatKernel())
