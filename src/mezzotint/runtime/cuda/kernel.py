"""Linear layers and convolutions on NVIDIA GPUs, in Triton."""

from __future__ import annotations

from abc import abstractmethod
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from typing_extensions import override

from mezzotint.formats import LookupSegment
from mezzotint.runtime.cuda.conv import ROWS, Windows
from mezzotint.runtime.kernels import AsStored, Kernel, Prepared, Request, register_kernel
from mezzotint.runtime.operands import Conv2d, InputQuantizer, Operation
from mezzotint.runtime.reference_kernel import ReferenceKernel

if TYPE_CHECKING:
    from mezzotint.runtime.cuda.inputs import ProductInput

#: Ampere: the oldest that Triton compiles for.
OLDEST = (8, 0)

#: More groups of channels leave the tensor cores nearly idle.
MOST_GROUPS = 32

#: Sums of more products of 8-bit integers may not fit 32 bits.
LONGEST = (2**31 - 1) // 255**2

_FLOATS = (torch.float16, torch.bfloat16, torch.float32)


def missing() -> str | None:
    """The reason why this machine cannot run Triton's kernels, for a report; None where it can."""
    if find_spec("triton") is None:
        return "needs Triton, which is not installed"
    if not torch.cuda.is_available():
        return "there is no CUDA device"
    if torch.version.hip is not None:
        return "needs a GPU of NVIDIA's"
    found = torch.cuda.get_device_capability()
    if found < OLDEST:
        needed, has = (".".join(map(str, each)) for each in (OLDEST, found))
        return f"needs compute capability {needed}, this GPU has {has}"
    return None


# The mark of torch.compiler.assume_constant_result, which would import the whole compiler.
missing._dynamo_marked_constant = True  # type: ignore[attr-defined]


def lookups(request: Request) -> list[LookupSegment]:
    """The forms of a request's weight that are looked up."""
    return [segment for segment in request.forms if isinstance(segment, LookupSegment)]


class GpuKernel(Kernel):
    """Base of both kernels. Triton is imported when the first layer runs."""

    device = "cuda"
    opaque = True

    @override
    def refuse(self, request: Request) -> str | None:
        return self.unserved(request) or missing()

    def unserved(self, request: Request) -> str | None:
        """Reason why this kernel cannot serve the formats, on whatever device."""
        groups = request.operation.groups
        if any(s.scale is not None and s.integer_bits is None for s in lookups(request)):
            return "knows no levels that are scaled, but integers"
        if groups > MOST_GROUPS:
            return f"takes convolutions of {MOST_GROUPS} groups or less, not {groups}"
        if groups > 1 and len(request.forms) > 1:
            return "mixed weights of convolutions in groups are stored across the groups"
        return None

    @override
    def run(
        self, prepared: Prepared, x: Tensor, quantizer: InputQuantizer | None, bias: Tensor | None
    ) -> Tensor:
        assert isinstance(prepared, AsStored)
        if x.dtype not in _FLOATS:
            return ReferenceKernel().run(prepared, x, quantizer, bias)
        from mezzotint.runtime.cuda import product  # noqa: PLC0415 - imports Triton

        weight, operation = prepared.weight, prepared.operation
        x = self.rounded(x, quantizer, operation)
        if isinstance(operation, Conv2d):
            values = x.permute(0, 2, 3, 1).contiguous()
            place = Windows(operation.geometry, (x.shape[2], x.shape[3]))
        else:
            values, place = x.reshape(-1, x.shape[-1]).contiguous(), ROWS
        with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
            y = product.multiply(self.inputs(values, quantizer), weight, bias, place, x.dtype)
        if isinstance(operation, Conv2d):
            return y.view(len(x), *place.out_size, weight.shape[0]).permute(0, 3, 1, 2)
        return y.view(*x.shape[:-1], weight.shape[0])

    @abstractmethod
    def rounded(self, x: Tensor, quantizer: InputQuantizer | None, operation: Operation) -> Tensor:
        """The input, rounded in floating point where `inputs` does not do it."""

    @abstractmethod
    def inputs(self, values: Tensor, quantizer: InputQuantizer | None) -> ProductInput:
        """The operand of a product, of inputs with channels last."""


class FloatKernel(GpuKernel):
    """Weights become float16, bfloat16 or float32 in registers; sums are float32.

    Activations of any format are rounded in floating point first.
    """

    name = "cuda-float"
    arithmetic: Literal["float"] = "float"

    @override
    def rounded(self, x: Tensor, quantizer: InputQuantizer | None, operation: Operation) -> Tensor:
        return x if quantizer is None else quantizer.rounded(x, operation)

    @override
    def inputs(self, values: Tensor, quantizer: InputQuantizer | None) -> ProductInput:
        from mezzotint.runtime.cuda.inputs import ProductInput  # noqa: PLC0415 - imports Triton

        return ProductInput(values)


class Int8Kernel(GpuKernel):
    """y = s_x · s_w · Σ (q_x - z_x)(q_w - z_w) + b, sums in 32 bits, exact.

    Weights of 1 to 8 bits become int8 in registers; padding is the zero point. Per group of
    weights, sums are exact within the group and added in float32.
    """

    name = "cuda-int8"
    arithmetic: Literal["int8"] = "int8"

    @override
    def unserved(self, request: Request) -> str | None:
        if request.activation is None:
            return "needs activations of 8 bits or less"
        if any(segment.integer_bits is None for segment in lookups(request)):
            return "levels of a codebook are not integers"
        if request.columns > LONGEST:
            return f"adds {LONGEST} products at most, so that sums fit into 32 bits"
        return super().unserved(request)

    @override
    def rounded(self, x: Tensor, quantizer: InputQuantizer | None, operation: Operation) -> Tensor:
        return x

    @override
    def inputs(self, values: Tensor, quantizer: InputQuantizer | None) -> ProductInput:
        from mezzotint.runtime.cuda import inputs  # noqa: PLC0415 - imports Triton

        assert quantizer is not None
        activation = quantizer.format
        if quantizer.scale is None or quantizer.zero_point is None:
            return inputs.quantized(values, activation, len(values))
        return inputs.quantized_statically(
            values, activation, quantizer.scale, quantizer.zero_point
        )


register_kernel(FloatKernel())
register_kernel(Int8Kernel())
