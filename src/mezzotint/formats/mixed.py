"""Several widths inside one layer: output channels of few bits, and of more."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from mezzotint.errors import FormatError
from mezzotint.formats.codebook import CodebookFormat
from mezzotint.formats.coded_format import CodedFormat
from mezzotint.formats.forms import Segment
from mezzotint.formats.grid import Grid
from mezzotint.formats.lut import LutFormat
from mezzotint.formats.mixed_grid import MixedGrid
from mezzotint.formats.packing import packed_width
from mezzotint.formats.ranges import RangeSearch
from mezzotint.formats.registry import NUMBER, register_weight_format
from mezzotint.formats.uniform import UniformFormat
from mezzotint.formats.weight_format import (
    ChannelOrder,
    Codes,
    Shape,
    TensorSpec,
    WeightFormat,
    code_pieces,
    matrix_shape,
    packed,
)

#: Format of channels of one bit with two free levels each; products of their codes are whole.
FREE = CodebookFormat(1, "channel")

_WIDE = "/float32"


@dataclass(frozen=True)
class MixedFormat(WeightFormat):
    """Output channels stored in segments, each in a format of its own width.

    `mixed/int2:64,int3:128,int4:64`: 64 channels of 2 bits, 128 of 3, 64 of 4, for weights of
    exactly 256 output channels. MPQ-DM (arXiv 2412.11549), outlier-driven mixed quantization.
    Channels of one bit may have two free levels each: `mixed/kmeans1:64,uint2:128,uint3:64`.

    Stored are `codes0`, `scale0` (and `zero_point0`), `codes1`, … as the format of each segment
    lays them out, and `order`, int32 [out_channels]: where each output channel stands among the
    stored rows.

    Attributes:
        formats: of the segments, of ascending width: all `int…/channel`, all `uint…/channel` or all
            `lut…/channel`, or the first one `kmeans1/channel`; scales in one dtype.
        counts: output channels of each segment.
    """

    formats: tuple[CodedFormat, ...]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.formats) != len(self.counts):
            raise FormatError(
                f"there are {len(self.formats)} widths but {len(self.counts)} counts; give a count "
                "for each width"
            )
        if len(self.formats) < 2:
            raise FormatError("fewer than two widths; name a uniform format such as 'int4/channel'")
        widths = self.widths
        if list(widths) != sorted(set(widths)):
            raise FormatError(f"widths are {widths}; write them ascending, each one once")
        for count in self.counts:
            if count < 1:
                raise FormatError(f"counts has {count}; a segment has 1 output channel or more")
        _check_kinds(self.formats[1:] if self.formats[0] == FREE else self.formats)

    @property
    @override
    def name(self) -> str:
        parts = zip(self.formats, self.counts, strict=True)
        segments = ",".join(f"{_kind(fmt)}{fmt.width}:{count}" for fmt, count in parts)
        return f"mixed/{segments}{self._suffix}"

    @property
    @override
    def bits(self) -> float:
        parts = zip(self.widths, self.counts, strict=True)
        return sum(width * count for width, count in parts) / sum(self.counts)

    @property
    def widths(self) -> tuple[int, ...]:
        """Bits of each segment, ascending."""
        return tuple(fmt.width for fmt in self.formats)

    @property
    def _suffix(self) -> str:
        """End of the name: `/float32` for scales of that dtype."""
        last = self.formats[-1]
        return _WIDE if isinstance(last, UniformFormat) and last.wide_scale else ""

    @override
    def layout(self, shape: Shape) -> Mapping[str, TensorSpec]:
        specs: dict[str, TensorSpec] = {}
        for index, (fmt, part) in enumerate(self._parts(shape)):
            specs |= {f"{name}{index}": spec for name, spec in fmt.layout(part).items()}
        return specs | {"order": TensorSpec((sum(self.counts),), torch.int32)}

    @override
    def grid(self, weight: Tensor, search: RangeSearch, order: Tensor | None = None) -> MixedGrid:
        """Grids of the segments, with channels assigned to widths by the caller.

        Args:
            weight: of as many output channels as `counts` sum to.
            search: choice of the clipping ranges.
            order: integer [out_channels], where each channel is to stand among the stored rows;
                by default they stand as they come.

        Raises:
            FormatError: `order` is not a permutation, or the weight cannot be encoded.
        """
        parts = self._parts(tuple(weight.shape))
        order = torch.arange(len(weight)) if order is None else order
        self._check_order(order)
        order = order.to(weight.device, torch.int64, copy=True)
        channels = torch.split(order.argsort(), list(self.counts))
        segments = [
            fmt.grid(weight.detach().index_select(0, rows), search)
            for (fmt, _), rows in zip(parts, channels, strict=True)
        ]
        return MixedGrid(tuple(segments), order)

    @override
    def ordered_grid(self, weight: Tensor, search: RangeSearch, order: ChannelOrder) -> MixedGrid:
        self._parts(tuple(weight.shape))  # before anybody counts the channels of another weight
        return self.grid(weight, search, order(weight, self.counts))

    @override
    def store(self, grid: Grid, codes: Codes) -> dict[str, Tensor]:
        if not isinstance(grid, MixedGrid):
            raise FormatError(f"{self} stores mixed grids, not a {type(grid).__name__}")
        counts = tuple(segment.shape[0] for segment in grid.segments)
        if counts != self.counts:
            raise FormatError(f"{self} cannot store a grid of segments of {counts} output channels")
        self._check_order(grid.order)
        tensors: dict[str, Tensor] = {}
        packed_codes = self._packed(grid, codes)
        for index, (fmt, segment) in enumerate(zip(self.formats, grid.segments, strict=True)):
            tensors[f"codes{index}"] = packed_codes[index]
            stored = fmt.store_parameters(segment)
            tensors |= {f"{name}{index}": tensor for name, tensor in stored.items()}
        return tensors | {"order": grid.order.to(torch.int32)}

    def _packed(self, grid: MixedGrid, codes: Codes) -> list[Tensor]:
        """The packed codes of each segment, of codes in the order of the output channels."""
        columns, device = grid.shape[1], grid.order.device
        found = [
            torch.empty(count, packed_width(columns, width), dtype=torch.uint8, device=device)
            for width, count in zip(self.widths, self.counts, strict=True)
        ]
        first = 0
        for piece in code_pieces(codes, grid.shape):
            places = grid.order[first : first + len(piece)]
            for width, start, rows in zip(self.widths, grid.starts, found, strict=True):
                held = ((places >= start) & (places < start + len(rows))).nonzero().flatten()
                part = packed(piece.index_select(0, held), width)
                rows.index_copy_(0, places.index_select(0, held) - start, part)
            first += len(piece)
        return found

    @override
    def segments(self, tensors: Mapping[str, Tensor], shape: Shape) -> tuple[Segment, ...]:
        return tuple(
            segment
            for index, (fmt, part) in enumerate(self._parts(shape))
            for segment in fmt.segments(self._stored(tensors, index), part)
        )

    @override
    def order(self, tensors: Mapping[str, Tensor]) -> Tensor:
        return tensors["order"].long()

    @override
    def check(self, tensors: Mapping[str, Tensor]) -> None:
        for index, fmt in enumerate(self.formats):
            try:
                fmt.check(self._stored(tensors, index))
            except FormatError as cause:
                raise FormatError(f"segment {index}, {fmt}: {cause}") from cause
        self._check_order(tensors["order"])

    def _stored(self, tensors: Mapping[str, Tensor], index: int) -> dict[str, Tensor]:
        """The tensors of one segment, under the names of its own format."""
        names = self.formats[index].layout((1, 1))
        return {name: tensors[f"{name}{index}"] for name in names}

    def _check_order(self, order: Tensor) -> None:
        rows = sum(self.counts)
        every = torch.arange(rows, device=order.device)
        if order.shape != every.shape or not torch.equal(order.long().sort().values, every):
            raise FormatError(
                f"order is not a permutation of the {rows} output channels, 0 to {rows - 1}"
            )

    def _parts(self, shape: Shape) -> tuple[tuple[CodedFormat, Shape], ...]:
        """Format and shape of each segment of a weight of `shape`."""
        rows, _ = matrix_shape(shape)
        if rows != sum(self.counts):
            raise FormatError(
                f"{self} holds {sum(self.counts)} output channels, but the weight of shape "
                f"{tuple(shape)} has {rows}; name counts that sum to {rows}"
            )
        counted = zip(self.formats, self.counts, strict=True)
        return tuple((fmt, (count, *shape[1:])) for fmt, count in counted)


def _kind(fmt: CodedFormat) -> str:
    """The name of a segment's format as far as its width."""
    return fmt.name.partition("/")[0].rstrip("0123456789")


def _check_kinds(formats: Sequence[CodedFormat]) -> None:
    """Raise FormatError where formats are none of segments, or do not go together."""
    for fmt in formats:
        uniform = isinstance(fmt, UniformFormat) and fmt.granularity == "channel"
        if not uniform and not isinstance(fmt, LutFormat):
            raise FormatError(
                f"{fmt} is no format of a segment; use {str(FREE)!r} for the first, and 'int', "
                "'uint' or 'lut' per channel"
            )
    if len({(_kind(fmt), fmt.name.partition("/")[2]) for fmt in formats}) > 1:
        raise FormatError("segments are all 'int' or all 'uint', or all 'lut', not several")


@register_weight_format
def _mixed(name: str) -> WeightFormat | None:
    part = rf"(?:u?int|lut|kmeans){NUMBER}:{NUMBER}"
    match = re.fullmatch(rf"mixed/{part}(?:,{part})*({_WIDE})?", name)
    if match is None:
        return None
    found = re.findall(r"([a-z]+)(\d+):(\d+)", name)
    formats = [_segment(kind, int(width), wide=bool(match[1])) for kind, width, _ in found]
    mixture = MixedFormat(tuple(formats), tuple(int(count) for *_, count in found))
    if mixture.name != name:
        raise FormatError(f"'lut' segments have no scales of another dtype; leave out {_WIDE!r}")
    return mixture


def _segment(kind: str, width: int, *, wide: bool) -> CodedFormat:
    """Format of a segment; those that are not uniform have no float32 scales."""
    if kind == "kmeans":
        return CodebookFormat(width, "channel")
    if kind == "lut":
        return LutFormat(width)
    return UniformFormat(width, kind == "int", wide_scale=wide)
