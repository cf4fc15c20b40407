"""Canonical forms of stored weights, which kernels compute: affine segments, lookup segments.

Whatever its format, a stored weight is a few segments of consecutive rows, each in one of these
forms: views of the stored tensors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mezzotint.formats.affine_grid import AffineGrid, middle
from mezzotint.formats.chunks import row_chunks
from mezzotint.formats.grid import row_part
from mezzotint.formats.lookup_grid import LookupGrid
from mezzotint.formats.packing import unpack


@dataclass(frozen=True)
class _Rows:
    """Consecutive stored rows.

    Attributes:
        shape: of the weight that these rows make: [rows, in, …].
        bits: width of the codes, 1 to 8.
        codes: packed, uint8 [rows, packed_width(columns, bits)].
    """

    shape: tuple[int, ...]
    bits: int
    codes: Tensor

    @property
    def columns(self) -> int:
        """Weights per row."""
        return math.prod(self.shape[1:])

    def unpacked(self) -> Tensor:
        """Codes, uint8 [rows, columns]."""
        return unpack(self.codes, self.bits, self.columns)


@dataclass(frozen=True)
class AffineSegment(_Rows):
    """Consecutive stored rows of w = scale · (code - zero_point).

    Attributes:
        scale: floating [rows or 1, groups].
        zero_point: uint8 [rows or 1, groups]; None in symmetric formats, where all are
            2^(bits - 1), or one half at one bit.
        group_size: columns that share a scale; None where a row has one.
    """

    scale: Tensor
    zero_point: Tensor | None
    group_size: int | None = None

    @property
    def integer_bits(self) -> int | None:
        """The width of integers that have one scale per row; None where groups have their own."""
        return self.bits if self.group_size is None else None

    @property
    def offset(self) -> float:
        """The zero point where none is stored."""
        return middle(self.bits)

    @property
    def grid(self) -> AffineGrid:
        """The values of the codes."""
        zero_point = self.zero_point
        return AffineGrid(
            self.bits,
            self.scale.float(),
            None if zero_point is None else zero_point.float(),
            (self.shape[0], self.columns),
            self.group_size or self.columns,
            self.scale.dtype,
        )

    def rows(self, rows: slice) -> AffineSegment:
        """Some rows alone: views."""
        codes, zero_point = self.codes[rows], self.zero_point
        zero_point = None if zero_point is None else row_part(zero_point, rows)
        shape, scale = (len(codes), *self.shape[1:]), row_part(self.scale, rows)
        return replace(self, shape=shape, codes=codes, scale=scale, zero_point=zero_point)


@dataclass(frozen=True)
class LookupSegment(_Rows):
    """Consecutive stored rows of w = levels[code], or scale · levels[code].

    Two levels lie evenly, whatever they are: w = low + (high - low) · code.

    Attributes:
        levels: floating [rows or 1, 2^bits], ascending; or int8 [1, 2^bits], with a scale.
        scale: floating [rows or 1, 1], or None for 1.
    """

    levels: Tensor
    scale: Tensor | None = None

    @property
    def integer_bits(self) -> int | None:
        """The width of the integers that stand for levels; None for levels of any value.

        Integers of all rows, with scales, stand for themselves, codes for two levels of any value.
        """
        if self.two_levels:
            return 1
        return 8 if self.scale is not None and self.levels.dtype == torch.int8 else None

    @property
    def two_levels(self) -> bool:
        """True of two levels of any value."""
        return self.bits == 1 and self.scale is None

    @property
    def line(self) -> tuple[Tensor, Tensor]:
        """Middle and half the distance of each row's `two_levels`, float32 [rows or 1, 1]."""
        low, high = self.levels[:, :1].float(), self.levels[:, 1:].float()
        # Halves first: the distance of huge levels would overflow.
        return high / 2 + low / 2, high / 2 - low / 2

    @property
    def grid(self) -> LookupGrid:
        """The values of the codes."""
        size = (self.shape[0], self.columns)
        if self.scale is None:
            return LookupGrid(self.levels.float(), size, dtype=self.levels.dtype)
        return LookupGrid(self.levels.float(), size, self.scale.float(), self.scale.dtype)

    def rows(self, rows: slice) -> LookupSegment:
        """Some rows alone: views."""
        codes = self.codes[rows]
        shape, levels = (len(codes), *self.shape[1:]), row_part(self.levels, rows)
        scale = None if self.scale is None else row_part(self.scale, rows)
        return replace(self, shape=shape, codes=codes, levels=levels, scale=scale)


Segment = AffineSegment | LookupSegment


def decoded(segments: Sequence[Segment]) -> Tensor:
    """The rows of all segments, float32 [rows, columns]."""
    pieces = [
        segment.rows(rows)
        for segment in segments
        for rows in row_chunks(segment.shape[0], segment.columns)
    ]
    if len(pieces) == 1:
        return _worth(pieces[0])
    size = sum(segment.shape[0] for segment in segments), segments[0].columns
    worth = torch.empty(size, dtype=torch.float32, device=segments[0].codes.device)
    for rows, piece in zip(
        torch.split(worth, [len(piece.codes) for piece in pieces]), pieces, strict=True
    ):
        rows.copy_(_worth(piece))
    return worth


def _worth(segment: Segment) -> Tensor:
    return segment.grid.values(segment.unpacked())
