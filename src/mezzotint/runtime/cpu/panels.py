"""Weights laid out in panels of sixteen outputs, as the package's own products want them."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from mezzotint.formats import LookupSegment, Segment, Shape
from mezzotint.runtime.cpu.library import fields, function, share, threads_for
from mezzotint.runtime.cpu.native import address
from mezzotint.runtime.cpu.tiles import book_of, steps
from mezzotint.runtime.cpu.units import Unit

#: Outputs side by side in a panel.
PANEL = 16
#: Forms of the numbers of a row, as layer.h has them.
_AFFINE, _TWO_LEVELS = 0, 1
_SCALE_DTYPES = {torch.float32: 0, torch.bfloat16: 1}


class _Segment(ctypes.Structure):
    _fields_: ClassVar = fields(
        pointers="packed panels totals book scale zero", longs="rows scale_step zero_step",
        ints="bits width scale_dtype form",
    )  # fmt: skip


class _Panels(ctypes.Structure):
    _fields_: ClassVar = fields(
        pointers="rows panels totals scratch", longs="channels taps", ints="unit"
    )


@dataclass(frozen=True, eq=False)
class Panels:
    """Rows of a weight in the layout of a unit, and what their integers stand for.

    Attributes:
        data: int8 [panels, depth / together, 16, together].
        totals: Σ integers, int32 [rows].
        segment: of the same rows, without their codes.
        kernel: channels, height and width.
    """

    data: Tensor
    totals: Tensor
    segment: Segment
    kernel: tuple[int, int, int]

    @property
    def rows(self) -> int:
        """The number of outputs."""
        return self.totals.shape[0]

    @property
    def scale(self) -> Tensor:
        """Float32 [rows]."""
        return steps(self.segment)[0]

    @property
    def shift(self) -> Tensor | None:
        """Float32 [rows], w = scale · integer - shift; None where it is zero."""
        return steps(self.segment)[1]

    def integers(self) -> Tensor:
        """The integers, int8 [rows, columns]."""
        channels, *window = self.kernel
        taps = math.prod(window)
        count, depth, _, together = self.data.shape
        dense = self.data.permute(0, 2, 1, 3).reshape(count * PANEL, depth * together)
        ordered = dense[: self.rows, : channels * taps].view(self.rows, taps, channels)
        return ordered.transpose(1, 2).flatten(1).contiguous()


def kernel_of(shape: Shape) -> tuple[int, int, int]:
    """Channels, height and width of the windows of a weight [out, in, …]."""
    channels, *window = shape[1:]
    height, width = window or (1, 1)
    return channels, height, width


def width_of(segment: Segment) -> int:
    """Bits of a segment's integers, one scale a row."""
    assert segment.integer_bits is not None
    return segment.integer_bits


def padded_size(shape: Shape, together: int) -> int:
    """Bytes of a weight [out, in, …] in panels."""
    depth = -(-math.prod(shape[1:]) // together) * together
    return -(-shape[0] // PANEL) * PANEL * depth


def panel_bytes(segment: Segment, unit: Unit) -> int:
    """Bytes of a segment in panels, beside views of what is stored."""
    return padded_size(segment.shape, unit.together(width_of(segment))) + 4 * segment.shape[0]


def in_panels(segment: Segment, unit: Unit) -> Panels:
    """A segment in the layout of a unit."""
    together = unit.together(width_of(segment))
    channels, height, width = kernel = kernel_of(segment.shape)
    rows, count = segment.shape[0], -(-segment.shape[0] // PANEL)
    depth = -(-segment.columns // together)
    data = torch.empty(count, depth, PANEL, together, dtype=torch.int8, device="cpu")
    totals = torch.empty(rows, dtype=torch.int32, device="cpu")
    threads = threads_for(count, data.numel())
    size = function("mz_lay_bytes")(depth * together)
    scratch = torch.empty(threads, size, dtype=torch.uint8, device="cpu")
    structure, kept = described(segment)
    work = _Panels(
        ctypes.addressof(structure), data.data_ptr(), totals.data_ptr(), scratch.data_ptr(),
        channels, height * width, unit.number,
    )  # fmt: skip
    share("mz_panels", work, count, threads)
    del kept
    nothing = torch.empty(0, 0, dtype=torch.uint8, device="cpu")
    return Panels(data, totals, replace(segment, codes=nothing), kernel)


def described(segment: Segment, panels: Panels | None = None) -> tuple[_Segment, list[Tensor]]:
    """A segment for the C functions, and the tensors that its addresses are of."""
    codes, book, zero = None, book_of(segment), None
    if panels is None:
        codes = segment.codes.contiguous()
    if isinstance(segment, LookupSegment):
        two_levels = segment.two_levels
        scale = segment.levels if two_levels else segment.scale
    else:
        two_levels, scale, zero = False, segment.scale, segment.zero_point
    assert scale is not None
    if scale.dtype not in _SCALE_DTYPES:
        scale = scale.float()
    scale = scale.contiguous()
    zero = None if zero is None else zero.contiguous()
    structure = _Segment(
        address(codes), None if panels is None else panels.data.data_ptr(),
        None if panels is None else panels.totals.data_ptr(), address(book), scale.data_ptr(),
        address(zero), segment.shape[0], int(len(scale) > 1),
        int(zero is not None and len(zero) > 1), segment.bits, width_of(segment),
        _SCALE_DTYPES[scale.dtype], _TWO_LEVELS if two_levels else _AFFINE,
    )  # fmt: skip
    kept = [codes, book, scale, zero]
    if panels is not None:
        kept += [panels.data, panels.totals]
    return structure, [each for each in kept if each is not None]


def described_weight(
    segments: Iterable[tuple[Segment, Panels | None]],
) -> tuple[ctypes.Array[_Segment], list[Tensor]]:
    """Segments for the C functions, one after another, and the tensors of their addresses."""
    found = [described(segment, panels) for segment, panels in segments]
    array = (_Segment * len(found))(*(structure for structure, _ in found))
    return array, [tensor for _, kept in found for tensor in kept]
