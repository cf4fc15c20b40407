"""A weight as oneDNN's kernel prepares it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from mezzotint.formats import Shape, pack
from mezzotint.runtime.cpu.onednn_products import OneDNNRows
from mezzotint.runtime.kernels import Replacement
from mezzotint.runtime.operands import Operation, PackedWeight


@dataclass(frozen=True, eq=False)
class OneDNNWeight(Replacement):
    """A weight for products by oneDNN: in its layout, or unpacked at every call.

    Attributes:
        operation: the computation.
        shape: of the weight.
        order: the stored row of each output, int64 [out], or None.
        symmetric: whether all zero points are zero.
        stored_weight: from which rows are unpacked at every call; None where they are held.
        held: rows in that layout, each with the number of its first.
        replaced: name of the stored tensor that `held` replaces.
        held_bytes: of `held`, beside what is stored.
    """

    operation: Operation
    shape: Shape
    order: Tensor | None
    symmetric: bool
    stored_weight: PackedWeight | None = None
    held: tuple[tuple[int, OneDNNRows], ...] = ()
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
