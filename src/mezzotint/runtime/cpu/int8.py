"""Products of 8-bit codes on a processor: what its kernels have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor
from typing_extensions import override

from mezzotint.formats import LookupSegment, Segment, Shape, pack
from mezzotint.runtime.cpu.tiles import check_on_cpu
from mezzotint.runtime.kernels import Kernel, Prepared, Replacement, Request
from mezzotint.runtime.operands import Conv2d, InputQuantizer, Operation, PackedWeight

#: Beyond, a sum of products of two 8-bit codes might not fit into 32 bits.
MAX_COLUMNS = (2**31 - 1) // (255 * 128)


class Rows(Protocol):
    """Some rows of a weight in the layout of a product: w = scale · integer - shift."""

    @property
    def rows(self) -> int:
        """The number of outputs."""

    @property
    def scale(self) -> Tensor:
        """Float32 [rows]."""

    @property
    def shift(self) -> Tensor | None:
        """Float32 [rows]; None where it is zero."""

    def integers(self) -> Tensor:
        """Int8 [rows, columns]."""


@dataclass(frozen=True, eq=False)
class Int8Weight(Replacement):
    """A weight for products of 8-bit codes: in a product's layout, or unpacked at every call.

    Attributes:
        operation: the computation.
        shape: of the weight.
        order: the stored row of each output, int64 [out], or None.
        symmetric: whether all zero points are zero.
        stored_weight: from which rows are unpacked at every call; None where they are held.
        held: rows in the product's layout, each with the number of its first.
        replaced: name of the stored tensor that `held` replaces.
        held_bytes: of `held`, beside what is stored.
    """

    operation: Operation
    shape: Shape
    order: Tensor | None
    symmetric: bool
    stored_weight: PackedWeight | None = None
    held: tuple[tuple[int, Rows], ...] = ()
    replaced: str | None = None
    held_bytes: int = 0

    @property
    @override
    def views_stored(self) -> bool:
        return self.stored_weight is not None

    @property
    @override
    def replaces(self) -> str | None:
        return self.replaced

    @property
    @override
    def extra_bytes(self) -> int:
        return self.held_bytes

    @override
    def stored(self) -> Tensor:
        ((_, rows),) = self.held
        return pack(rows.integers().view(torch.uint8) ^ 0x80, 8)

    def values(self) -> Tensor:
        """The weight, float32 of its shape."""
        if self.stored_weight is not None:
            return self.stored_weight.dequantized(torch.float32)
        parts = []
        for _, rows in self.held:
            part = rows.integers().float() * rows.scale.view(-1, 1)
            parts.append(part if rows.shift is None else part - rows.shift.view(-1, 1))
        stored = torch.cat(parts)
        ordered = stored if self.order is None else stored.index_select(0, self.order)
        return ordered.view(self.shape)


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

    @override
    def run(
        self, prepared: Prepared, x: Tensor, quantizer: InputQuantizer | None, bias: Tensor | None
    ) -> Tensor:
        assert isinstance(prepared, Int8Weight)
        assert quantizer is not None
        check_on_cpu(bias, quantizer.scale)
        operation = prepared.operation
        if not x.numel() or not operation.takes(x, prepared.shape):
            # Nothing to multiply, or torch's own operation says what is wrong.
            shift = None if bias is None else bias.to(x.dtype)
            return operation.apply(x, prepared.values().to(x.dtype), shift)
        if quantizer.several:
            # Each part alone, as in single calls: a sum depends on its zero point in its last bits.
            outputs = [self.run(prepared, part, own, bias) for part, own in quantizer.split(x)]
            return torch.cat(outputs)
        x = x.resolve_neg()
        if isinstance(operation, Conv2d):
            images = x if x.ndim == 4 else x.unsqueeze(0)
            y = self.convolved(prepared, operation, images, quantizer, bias)
            return y if x.ndim == 4 else y.squeeze(0)
        rows = x.reshape(-1, x.shape[-1])
        return self.multiplied(prepared, rows, quantizer, bias).view(*x.shape[:-1], -1)

    @abstractmethod
    def multiplied(
        self, weight: Int8Weight, x: Tensor, quantizer: InputQuantizer, bias: Tensor | None
    ) -> Tensor:
        """The output [rows, out] of rows [rows, in]."""

    @abstractmethod
    def convolved(
        self,
        weight: Int8Weight,
        operation: Conv2d,
        x: Tensor,
        quantizer: InputQuantizer,
        bias: Tensor | None,
    ) -> Tensor:
        """The output [n, out, h, w] of images [n, c, h, w]."""


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
