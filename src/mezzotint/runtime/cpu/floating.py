"""Packed weights by floating inputs, without ever holding a large layer dequantized."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from mezzotint.runtime.cpu import processor
from mezzotint.runtime.cpu.weights import Tile, check_on_cpu, floats, tiles
from mezzotint.runtime.kernels import Kernel, Request, register_kernel
from mezzotint.runtime.layer import QuantLayer
from mezzotint.runtime.layers import QuantConv2d


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
        if layer.groups > 1:
            # A tile would hold parts of groups; such weights are small.
            return layer.apply_float(rounded, layer.dequantized_weight(rounded.dtype)).to(x.dtype)
        outputs = [_product(layer, tile, rounded) for tile in tiles(layer, rounded.element_size())]
        dim = layer.channel_dim
        y = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim)
        order = layer.weight_format.order(layer.weight_tensors())
        if order is not None:
            y = y.index_select(dim, order)
        y = y.to(x.dtype)
        return y if layer.bias is None else y.add_(layer.shaped_bias(x.dtype))


def _product(layer: QuantLayer, tile: Tile, x: Tensor) -> Tensor:
    weight = floats(tile, x.dtype)
    if isinstance(layer, QuantConv2d):
        weight = weight.view(tile.rows, *layer.weight_shape[1:])
        return functional.conv2d(x, weight, None, **layer.geometry)
    return functional.linear(x, weight)


register_kernel(FloatKernel())
