"""The reference kernel: pure torch, any device, any format."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from typing_extensions import override

from mezzotint.runtime.kernels import Kernel, Request, register_kernel
from mezzotint.runtime.layer import QuantLayer


class ReferenceKernel(Kernel):
    """Dequantizes the weight for the length of the call, then computes in floating point.

    The input is rounded to its format first. Only packed weights outlive the call.
    """

    name = "reference"
    arithmetic: Literal["float"] = "float"

    @override
    def refuse(self, request: Request) -> str | None:
        return None

    @override
    def run(self, layer: QuantLayer, x: Tensor) -> Tensor:
        return layer.apply_float(layer.round_input(x), layer.dequantized_weight(x.dtype))


register_kernel(ReferenceKernel(), preferred=False)
