"""Products by the package's own C, exact at all widths, in one call for a layer.

The call quantizes the input, lays weights out in panels of sixteen outputs, a few at a time, and
multiplies. Weights of 8 bits are kept in panels where that adds hardly a byte to what is stored.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from typing_extensions import override

from mezzotint.formats import LookupSegment, Segment, pack
from mezzotint.runtime.cpu import units
from mezzotint.runtime.cpu.bound_layer import BoundLayer
from mezzotint.runtime.cpu.int8 import (
    Int8Kernel,
    in_parts,
    plain_output,
    replaced_tensor,
    unpacked_once,
)
from mezzotint.runtime.cpu.measured_choice import faster_than
from mezzotint.runtime.cpu.native import DTYPES
from mezzotint.runtime.cpu.panels import Panels, in_panels, padded_size, panel_bytes, width_of
from mezzotint.runtime.cpu.tiles import check_on_cpu
from mezzotint.runtime.cpu.units import Unit
from mezzotint.runtime.kernels import Kernel, Prepared, Replacement, Request
from mezzotint.runtime.operands import Conv2d, InputQuantizer, Operation, PackedWeight

#: The most bytes of panels that replace stored codes, as part of these.
MOST_PADDING = 1.02
#: Fewer outputs of a group leave most of a panel empty.
_LEAST_OF_GROUP = 4


@dataclass(frozen=True, eq=False)
class OwnWeight(Replacement):
    """A weight for the package's own products.

    Attributes:
        bound: to the C functions.
        tensors: whose addresses these have.
        panels: that are held, by segments; none where they are laid out at every call.
        replaced: name of the stored tensor that the panels replace.
        held_bytes: of panels, beside what is stored.
    """

    bound: BoundLayer
    tensors: tuple[Tensor, ...]
    panels: tuple[Panels, ...] = ()
    replaced: str | None = None
    held_bytes: int = 0

    @property
    @override
    def views_stored(self) -> bool:
        return not self.panels

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
        (panels,) = self.panels
        return pack(panels.integers().view(torch.uint8) ^ 0x80, 8)

    @override
    def by_addresses(self, stored: Iterable[Tensor]) -> Prepared:
        theirs = {tensor.untyped_storage().data_ptr() for tensor in stored}
        own = [t for t in self.tensors if t.untyped_storage().data_ptr() not in theirs]
        return replace(self, tensors=tuple(own))


class OwnKernel(Int8Kernel):
    """Multiplies with the fastest vector unit that the package's C functions know here."""

    name = "cpu-int8"

    def __init__(self, other: Kernel) -> None:
        """Products that give way to another kernel where that was measured to be faster."""
        self._other = other

    @override
    def refuse_products(self, request: Request) -> str | None:
        if units.unit() is None:
            return "needs the package's C functions, and AVX2 or NEON with dot products"
        return self._refuse_groups(request) if request.operation.groups > 1 else None

    def _refuse_groups(self, request: Request) -> str | None:
        """Reason against a convolution of groups of channels: there is nothing to be gained."""
        if len(request.forms) > 1:
            return "needs weights of one width where channels are in groups"
        (form,), channels = request.forms, request.shape[1]
        each = request.shape[0] // request.operation.groups
        if channels == each == 1:
            two_levels = isinstance(form, LookupSegment) and form.two_levels
            return "needs zero points that are integers, channel by channel" if two_levels else None
        if each < _LEAST_OF_GROUP:
            return f"needs {_LEAST_OF_GROUP} outputs or more of a group of channels, or one of one"
        return None

    @override
    def slower_than(self, request: Request) -> str | None:
        return self._other.name if faster_than(self, self._other, request) else None

    @override
    def unpacked_bytes(self, request: Request) -> int:
        unit = units.unit()
        if unit is None or request.operation.groups > 1 or _replaces(request.forms, unit):
            return 0
        return sum(panel_bytes(form, unit) for form in request.forms)

    @override
    def prepare(
        self, weight: PackedWeight, operation: Operation, *, unpack: bool = False
    ) -> Prepared:
        check_on_cpu(*weight.tensors.values())
        unit = units.unit()
        assert unit is not None, "the kernel refuses all where there is none"
        segments, alone = weight.segments, operation.groups == 1
        replaced = replaced_tensor(weight) if alone and _replaces(segments, unit) else None
        panels: tuple[Panels, ...] = ()
        if alone and (unpack or replaced is not None):
            panels = tuple(in_panels(segment, unit) for segment in segments)
        each = panels or (None,) * len(segments)
        pairs = zip(segments, each, strict=True)
        bound = BoundLayer(pairs, weight.order, operation, weight.shape, unit)
        extra = sum(panel_bytes(segment, unit) for segment in segments) if panels else 0
        if replaced is not None:
            extra -= weight.tensors[replaced].nbytes
        return OwnWeight(bound, bound.tensors, panels, replaced, max(extra, 0))

    @override
    def run(
        self, prepared: Prepared, x: Tensor, quantizer: InputQuantizer | None, bias: Tensor | None
    ) -> Tensor:
        assert isinstance(prepared, OwnWeight)
        assert quantizer is not None
        check_on_cpu(bias, quantizer.scale)
        bound = prepared.bound
        if not quantizer.several and x.dtype in DTYPES and not x.is_neg():
            found = bound.output(x, quantizer, _readable(bias))
            if found is not None:
                return found
        return self._run_unusual(prepared, x, quantizer, bias)

    def _run_unusual(
        self, prepared: OwnWeight, x: Tensor, quantizer: InputQuantizer, bias: Tensor | None
    ) -> Tensor:
        """The output for an input that the C functions cannot read as it is."""
        bound = prepared.bound
        operation = bound.operation
        if not x.numel() or not operation.takes(x, bound.shape):
            return plain_output(operation, bound.shape, x, bias)
        if quantizer.several:
            return in_parts(self, prepared, x, quantizer, bias)
        if x.dtype not in DTYPES:
            return self.run(prepared, x.float(), quantizer, bias).to(x.dtype)
        x = x.resolve_neg()
        if isinstance(operation, Conv2d) and x.ndim == 3:
            return self.run(prepared, x.unsqueeze(0), quantizer, bias).squeeze(0)
        return self.run(prepared, x.clone(memory_format=operation.memory_format), quantizer, bias)


def _readable(bias: Tensor | None) -> Tensor | None:
    """A bias as the C functions read it; whoever lends one may lend a view."""
    if bias is None or (bias.dtype in DTYPES and bias.stride(0) == 1 and not bias.is_neg()):
        return bias
    return bias.detach().resolve_neg().float().contiguous()


def _replaces(segments: Sequence[Segment], unit: Unit) -> bool:
    """Return whether panels replace the stored codes: of 8 bits, where that adds hardly a byte."""
    if not unpacked_once(segments):
        return False
    (only,) = segments
    size = padded_size(only.shape, unit.together(width_of(only)))
    return size <= math.prod(only.shape) * MOST_PADDING
