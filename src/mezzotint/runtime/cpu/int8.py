"""Products of 8-bit codes on a processor: what its kernels have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from typing_extensions import override

from mezzotint.formats import LookupSegment, Segment, Shape
from mezzotint.runtime.kernels import Kernel, Prepared, Request
from mezzotint.runtime.operands import InputQuantizer, Operation, PackedWeight

#: Beyond, a sum of products of two 8-bit codes might not fit into 32 bits.
MAX_COLUMNS = (2**31 - 1) // (255 * 128)


class Int8Kernel(Kernel):
    """y = s_x · s_w · (Σ q_x q_w - z_w Σ q_x) + b, sums in 32 bits, exact.

    Inputs are quantized in one pass.
    """

    arithmetic: Literal["int8"] = "int8"
    device = "cpu"
    opaque = True

    @override
    def refuse(self, request: Request) -> str | None:
        if request.activation is None:
            return "needs activations of 8 bits or less"
        for segment in request.forms:
            if segment.integer_bits is not None:
                continue
            if isinstance(segment, LookupSegment):
                return "needs uniform weights, or levels that are integers"
            return "needs one scale per output channel, not per group"
        if request.columns > MAX_COLUMNS:
            return f"adds {MAX_COLUMNS} products at most, so that sums fit into 32 bits"
        return self.refuse_products(request)

    @abstractmethod
    def refuse_products(self, request: Request) -> str | None:
        """Reason why there are no such products of the request's codes; None where there are."""


def plain_output(operation: Operation, shape: Shape, x: Tensor, bias: Tensor | None) -> Tensor:
    """The output for an input without values, or torch's own error for one that does not fit."""
    nothing = torch.zeros((), dtype=x.dtype, device="cpu").expand(shape)
    return operation.apply(x, nothing, None if bias is None else bias.to(x.dtype))


def in_parts(
    kernel: Kernel,
    prepared: Prepared,
    x: Tensor,
    quantizer: InputQuantizer,
    bias: Tensor | None,
) -> Tensor:
    """The output where parts of the batch have scales of their own.

    Each part alone, as in single calls: a sum depends on its zero point in its last bits.
    """
    parts = quantizer.split(x)
    return torch.cat([kernel.run(prepared, part, own, bias) for part, own in parts])


def unpacked_once(forms: Sequence[Segment]) -> bool:
    """Return whether codes in a layout for products take no more bytes than as they are stored."""
    return len(forms) == 1 and forms[0].bits == 8


def replaced_tensor(weight: PackedWeight) -> str | None:
    """The stored tensor that one of a product's layouts can replace: codes of 8 bits, alone."""
    name, first = next(iter(weight.tensors.items()))
    replaceable = unpacked_once(weight.segments) and weight.segments[0].codes is first
    return name if replaceable and weight.order is None else None


def is_symmetric(segments: Sequence[Segment]) -> bool:
    """Return whether the integers of all segments count from the value zero."""
    return all(
        not each.two_levels if isinstance(each, LookupSegment) else each.zero_point is None
        for each in segments
    )
