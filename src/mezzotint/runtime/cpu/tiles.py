"""Packed weights, a few rows at a time: as integers for the 8-bit units, or as floating values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mezzotint.errors import UsageError
from mezzotint.formats import AffineSegment, LookupSegment, Segment
from mezzotint.runtime.cpu import native
from mezzotint.runtime.operands import PackedWeight

#: Bytes unpacked at a time: they should stay in the cache of a core until they are used.
TILE_BYTES = 1 << 22
#: Products of a number of columns that is no multiple of a vector's lanes take a third longer.
TILE_ROWS = 64


@dataclass(frozen=True)
class Tile:
    """Some of a weight's stored rows.

    Attributes:
        start: the first, counted over all segments.
        segment: these rows alone.
    """

    start: int
    segment: Segment

    @property
    def rows(self) -> int:
        """The number of them."""
        return self.segment.shape[0]

    @property
    def stop(self) -> int:
        """The row after the last, over all segments."""
        return self.start + self.rows

    @property
    def columns(self) -> int:
        """Weights per row."""
        return self.segment.columns


def tiles(weight: PackedWeight, itemsize: int, whole: bool = False) -> Iterator[Tile]:
    """Every stored row of a weight, in tiles of about `TILE_BYTES` when unpacked.

    With `whole`, a tile is a segment.
    """
    start = 0
    for segment in weight.segments:
        rows = segment.shape[0]
        step = TILE_BYTES // (segment.columns * itemsize)
        step = rows if whole else max(TILE_ROWS, step // TILE_ROWS * TILE_ROWS)
        for first in range(0, rows, step):
            yield Tile(start + first, segment.rows(slice(first, first + step)))
        start += rows


def check_on_cpu(*tensors: Tensor | None) -> None:
    """Raise UsageError where part of a layer is on another device: C reads bare addresses."""
    for tensor in tensors:
        if tensor is not None and tensor.device.type != "cpu":
            raise UsageError(
                f"a layer's input is on the cpu, but its weight on {tensor.device}; move the input "
                "to it, or the model to the cpu"
            )


def stored_bias(bias: Tensor | None, order: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """A bias, contiguous, in the order in which the rows of the weight are stored."""
    if bias is None:
        return None
    # Whoever lends a bias may lend a view.
    bias = bias.detach().resolve_neg().to(dtype).contiguous()
    return bias if order is None else torch.empty_like(bias).index_copy_(0, order, bias)


@dataclass(frozen=True)
class IntegerTile:
    """w = scale · codes - shift.

    Attributes:
        codes: int8 [rows, columns].
        scale: float32 [rows].
        shift: float32 [rows]; None where it is zero.
    """

    codes: Tensor
    scale: Tensor
    shift: Tensor | None


def integers(tile: Tile) -> IntegerTile:
    """A tile of rows of integers with one scale each, or one for all."""
    segment, book = tile.segment, book_of(tile.segment)
    codes = torch.empty(tile.rows, tile.columns, dtype=torch.int8, device="cpu")
    if native.available():
        native.unpack(segment.codes.contiguous(), segment.bits, book, codes)
    elif book is not None:
        codes.copy_(book.view(-1)[segment.unpacked().int()])
    elif segment.bits == 1:
        codes.copy_(segment.unpacked()).mul_(2).sub_(1)
    else:
        # In two's complement the wrap is exact.
        codes.copy_((segment.unpacked() - 2 ** (segment.bits - 1)).view(torch.int8))
    return IntegerTile(codes, *steps(segment))


def book_of(segment: Segment) -> Tensor | None:
    """The levels of a segment's codes, int8 [1, 2^bits]; None where codes count from the middle."""
    if isinstance(segment, AffineSegment) or segment.two_levels:
        return None
    return segment.levels.contiguous()


def steps(segment: Segment) -> tuple[Tensor, Tensor | None]:
    """Scale and shift of a segment's `IntegerTile`."""
    rows = segment.shape[0]
    if isinstance(segment, LookupSegment):
        if segment.scale is not None:
            return segment.scale.float().view(-1).expand(rows), None
        # The codes ±1 count from the middle.
        middle, half = (each.view(-1).expand(rows) for each in segment.line)
        return half, -middle
    scale = segment.scale.float().view(-1).expand(rows)
    # At one bit the codes ±1 count in halves of the scale.
    step = 2 if segment.bits == 1 else 1
    scale = scale if step == 1 else scale / step
    if segment.zero_point is None:
        return scale, None
    zero_point = (segment.zero_point.view(-1).float() - segment.offset).mul_(step).expand(rows)
    return scale, scale * zero_point


def floats(tile: Tile, dtype: torch.dtype) -> Tensor:
    """A tile as floating values [rows, columns]."""
    segment = tile.segment
    out = torch.empty(tile.rows, tile.columns, dtype=dtype, device="cpu")
    if not native.available(out):
        return out.copy_(segment.grid.values(segment.unpacked()))
    codes = segment.codes.contiguous()
    if isinstance(segment, AffineSegment):
        native.dequantize(codes, segment.bits, _affine(segment), out)
        return out
    levels = segment.levels.float()
    if segment.scale is not None:
        levels = levels * segment.scale.float()
    native.look_up(codes, segment.bits, levels.contiguous(), out)
    return out


def _affine(segment: AffineSegment) -> tuple[Tensor, Tensor, int]:
    """Scale and zero point, float32 [rows, groups], and the size of a group."""
    scale, zero_point = segment.scale.float(), segment.zero_point
    zero = torch.full_like(scale, segment.offset) if zero_point is None else zero_point.float()
    shape = (segment.shape[0], scale.shape[1])
    size = segment.group_size or segment.columns
    return scale.expand(shape).contiguous(), zero.expand(shape).contiguous(), size
