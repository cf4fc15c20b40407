"""Linear layers on the processor's 8-bit integer units, through torch's own integer product."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad
from typing_extensions import override

from mezzotint.formats import UniformFormat, from_bits
from mezzotint.runtime.kernels import Kernel, Request, register_kernel
from mezzotint.runtime.layers import QuantLayer

# Asked once: compilers cannot trace the question.
_VNNI = torch.cpu._is_vnni_supported()


class Int8LinearKernel(Kernel):
    """y = s_x · s_w · (Σ q_x q_w - z_w Σ q_x), sums in int32, exact.

    Weights of 2–8 bits are unpacked to int8 for the length of the call.
    """

    name = "cpu-int8"
    arithmetic: Literal["int8"] = "int8"

    @override
    def refuse(self, request: Request) -> str | None:
        if request.operation != "linear":
            return "computes Linear layers only"
        if request.device != "cpu":
            return f"runs on the CPU, not on {request.device}"
        activation = request.activation
        if activation is None or activation.static or not activation.symmetric:
            return "needs activations in int8/token"
        weight = request.weight
        if not isinstance(weight, UniformFormat) or weight.width == 1:
            return "needs uniform weights of 2 to 8 bits"
        if weight.granularity == "group":
            return "needs one scale per output channel, not per group"
        if not _VNNI:
            return "this processor has no VNNI; its 8-bit products saturate"
        return None

    @override
    def run(self, layer: QuantLayer, x: Tensor) -> Tensor:
        weight_format, activation = layer.weight_format, layer.activation_format
        assert isinstance(weight_format, UniformFormat)
        assert activation is not None
        rows = x.reshape(-1, x.shape[-1])
        scale, zero = activation.dynamic_parameters(rows, (1,))
        quantized = activation.quantize(rows, scale, zero).to(torch.int8)
        tensors = layer.weight_tensors()
        codes = weight_format.codes(tensors, layer.weight_shape)
        half = 2 ** (weight_format.width - 1)
        # Codes minus half of their range always fit int8; in two's complement the wrap is exact.
        products = _product(quantized, (codes - half).view(torch.int8)).float()
        if not weight_format.symmetric:
            shift = tensors["zero_point"].float().view(1, -1) - half
            sums = quantized.sum(1, keepdim=True, dtype=torch.int32).float()
            products = products.addcmul_(sums, shift, value=-1)
        weight_scale = from_bits(tensors["scale"], weight_format.scale_dtype).view(1, -1)
        output = products.mul_(scale).mul_(weight_scale)
        if layer.bias is not None:
            output = output.add_(layer.bias.float())
        return output.to(x.dtype).view(*x.shape[:-1], layer.weight_shape[0])


def _product(x: Tensor, weight: Tensor) -> Tensor:
    """The product with the transposed weight, in int32."""
    rows, columns = x.shape
    if rows == 1 or columns == 1:
        # torch takes the length of a row from the stride of a dimension of size 1, which may be
        # anything, and returns garbage (pytorch/pytorch#195066): give it another row or column.
        spare = int(columns == 1)
        x, weight = pad(x, (0, spare, 0, int(rows == 1))), pad(weight, (0, spare))
    return torch._int_mm(x, weight.t())[:rows]


register_kernel(Int8LinearKernel())
