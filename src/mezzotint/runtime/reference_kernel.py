"""The reference kernel: pure torch, any device, any format."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from typing_extensions import override

from mezzotint.runtime.kernels import AsStored, Kernel, Prepared, Request, register_kernel
from mezzotint.runtime.operands import InputQuantizer


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
    def run(
        self, prepared: Prepared, x: Tensor, quantizer: InputQuantizer | None, bias: Tensor | None
    ) -> Tensor:
        assert isinstance(prepared, AsStored)
        operation = prepared.operation
        rounded = x if quantizer is None else quantizer.rounded(x, operation)
        shift = None if bias is None else bias.to(x.dtype)
        return operation.apply(rounded, prepared.weight.dequantized(x.dtype), shift)


register_kernel(ReferenceKernel(), preferred=False)
