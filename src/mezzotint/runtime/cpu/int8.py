"""The kernel for 8-bit integers, whoever multiplies them best on this processor."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor
from typing_extensions import override

from mezzotint.runtime.cpu import avx2, onednn, panels
from mezzotint.runtime.cpu.floating import FloatKernel
from mezzotint.runtime.cpu.inputs import fits, has_codes
from mezzotint.runtime.cpu.weights import check_on_cpu, replaceable, uniforms
from mezzotint.runtime.kernels import Kernel, Request, register_kernel
from mezzotint.runtime.layer import QuantLayer
from mezzotint.runtime.layers import QuantConv2d

#: Beyond, a sum of products of two 8-bit codes might not fit into 32 bits.
MAX_COLUMNS = (2**31 - 1) // (255 * 128)


class Int8Kernel(Kernel):
    """y = s_x · s_w · (Σ q_x q_w - z_w Σ q_x) + b, sums in 32 bits, exact.

    Inputs are quantized in one pass. Without VNNI the package's own C multiplies, exactly at all
    widths; oneDNN does where there is VNNI, and for what it can do exactly where there is no C.
    """

    name = "cpu-int8"
    arithmetic: Literal["int8"] = "int8"
    device = "cpu"
    opaque = True
    #: Takes inputs of sizes that oneDNN computes wrongly.
    _beside = FloatKernel()

    @override
    def refuse(self, request: Request) -> str | None:
        if not has_codes(request.activation):
            return "needs activations in int8/token or uint8/tensor"
        for weight in uniforms(request.weight):
            if weight is None:
                return "needs uniform weights"
            if weight.granularity == "group":
                return "needs one scale per output channel, not per group"
        if request.columns > MAX_COLUMNS:
            return f"adds {MAX_COLUMNS} products at most, so that sums fit into 32 bits"
        taps = math.prod(request.geometry.kernel) if request.geometry else 1
        if avx2.available(request.geometry, request.columns // taps):
            return None
        return onednn.refuse(request)

    @override
    def run(self, layer: QuantLayer, x: Tensor) -> Tensor:
        check_on_cpu(layer)
        if not x.numel() or not fits(layer, x):
            return layer.apply_float(x, layer.dequantized_weight(x.dtype))
        if avx2.available(layer.conv_geometry, layer.weight_shape[1]):
            multiply = avx2.run
        elif onednn.is_safe(layer, x):
            multiply = onednn.run
        else:
            return self._beside.run(layer, x)
        x = x.resolve_neg()
        if isinstance(layer, QuantConv2d) and x.ndim == 3:
            return multiply(layer, x.unsqueeze(0)).squeeze(0)
        return multiply(layer, x)

    @override
    def unpacked_bytes(self, layer: QuantLayer) -> int:
        if avx2.available(layer.conv_geometry, layer.weight_shape[1]):
            return panels.unpacked_bytes(layer)
        return 0 if replaceable(layer) else math.prod(layer.weight_shape)


register_kernel(Int8Kernel())
