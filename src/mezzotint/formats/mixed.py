"""Several widths inside one layer: output channels of few bits, and of more."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from mezzotint.errors import FormatError
from mezzotint.formats.forms import AffineSegment
from mezzotint.formats.grid import Grid
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


@dataclass(frozen=True)
class MixedFormat(WeightFormat):
    """Output channels stored in segments, each uniform per channel of its own width.

    `mixed/int2:64,int3:128,int4:64`: 64 channels of 2 bits, 128 of 3, 64 of 4, for weights of
    exactly 256 output channels. MPQ-DM (arXiv 2412.11549), outlier-driven mixed quantization.

    Stored are `codes0`, `scale0` (and `zero_point0`), `codes1`, … as `UniformFormat` lays out each
    segment, and `order`, int32 [out_channels]: where each output channel stands among the stored
    rows.

    Attributes:
        widths: bits of each segment, ascending.
        counts: output channels of each segment.
        symmetric: of all segments alike: `int` or `uint`.
        wide_scale: whether scales are float32 (`mixed/int2:64,int3:192/float32`), not bfloat16.
    """

    widths: tuple[int, ...]
    counts: tuple[int, ...]
    symmetric: bool = True
    wide_scale: bool = False

    def __post_init__(self) -> None:
        if len(self.widths) != len(self.counts):
            raise FormatError(
                f"there are {len(self.widths)} widths but {len(self.counts)} counts; give a count "
                "for each width"
            )
        if len(self.widths) < 2:
            raise FormatError("fewer than two widths; name a uniform format such as 'int4/channel'")
        if list(self.widths) != sorted(set(self.widths)):
            raise FormatError(f"widths are {self.widths}; write them ascending, each one once")
        for count in self.counts:
            if count < 1:
                raise FormatError(f"counts has {count}; a segment has 1 output channel or more")
        for width in self.widths:
            self._format(width)

    @property
    @override
    def name(self) -> str:
        kind = "int" if self.symmetric else "uint"
        parts = zip(self.widths, self.counts, strict=True)
        segments = ",".join(f"{kind}{width}:{count}" for width, count in parts)
        return f"mixed/{segments}{'/float32' if self.wide_scale else ''}"

    @property
    @override
    def bits(self) -> float:
        parts = zip(self.widths, self.counts, strict=True)
        return sum(width * count for width, count in parts) / sum(self.counts)

    @property
    def formats(self) -> tuple[UniformFormat, ...]:
        """Format of each segment."""
        return tuple(map(self._format, self.widths))

    def _format(self, width: int) -> UniformFormat:
        return UniformFormat(width, self.symmetric, wide_scale=self.wide_scale)

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
    def segments(self, tensors: Mapping[str, Tensor], shape: Shape) -> tuple[AffineSegment, ...]:
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
        names = ("codes", "scale") if self.symmetric else ("codes", "scale", "zero_point")
        return {name: tensors[f"{name}{index}"] for name in names}

    def _check_order(self, order: Tensor) -> None:
        rows = sum(self.counts)
        every = torch.arange(rows, device=order.device)
        if order.shape != every.shape or not torch.equal(order.long().sort().values, every):
            raise FormatError(
                f"order is not a permutation of the {rows} output channels, 0 to {rows - 1}"
            )

    def _parts(self, shape: Shape) -> tuple[tuple[UniformFormat, Shape], ...]:
        """Format and shape of each segment of a weight of `shape`."""
        rows, _ = matrix_shape(shape)
        if rows != sum(self.counts):
            raise FormatError(
                f"{self} holds {sum(self.counts)} output channels, but the weight of shape "
                f"{tuple(shape)} has {rows}; name counts that sum to {rows}"
            )
        counted = zip(self.formats, self.counts, strict=True)
        return tuple((fmt, (count, *shape[1:])) for fmt, count in counted)


@register_weight_format
def _mixed(name: str) -> WeightFormat | None:
    part = rf"u?int{NUMBER}:{NUMBER}"
    match = re.fullmatch(rf"mixed/{part}(,{part})*(/float32)?", name)
    if match is None:
        return None
    found = re.findall(r"(u?)int(\d+):(\d+)", name)
    kinds, widths, counts = zip(*found, strict=True)
    if len(set(kinds)) > 1:
        raise FormatError("segments are all 'int' or all 'uint', not both")
    numbers = tuple(map(int, widths)), tuple(map(int, counts))
    return MixedFormat(*numbers, not kinds[0], name.endswith("/float32"))
