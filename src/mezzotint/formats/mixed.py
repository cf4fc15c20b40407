"""Several widths inside one layer: output channels of few bits, and of more."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from mezzotint.errors import FormatError
from mezzotint.formats.base import (
    MINMAX,
    RangeSearch,
    Segment,
    Shape,
    TensorSpec,
    WeightFormat,
    matrix_shape,
)
from mezzotint.formats.kurtosis import channel_order
from mezzotint.formats.registry import NUMBER, register_weight_format
from mezzotint.formats.uniform import UniformFormat


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
    """

    widths: tuple[int, ...]
    counts: tuple[int, ...]
    symmetric: bool = True

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
            UniformFormat(width, self.symmetric)

    @property
    @override
    def name(self) -> str:
        kind = "int" if self.symmetric else "uint"
        parts = zip(self.widths, self.counts, strict=True)
        return "mixed/" + ",".join(f"{kind}{width}:{count}" for width, count in parts)

    @property
    @override
    def bits(self) -> float:
        parts = zip(self.widths, self.counts, strict=True)
        return sum(width * count for width, count in parts) / sum(self.counts)

    @property
    def formats(self) -> tuple[UniformFormat, ...]:
        """Of each segment."""
        return tuple(UniformFormat(width, self.symmetric) for width in self.widths)

    @override
    def layout(self, shape: Shape) -> Mapping[str, TensorSpec]:
        specs: dict[str, TensorSpec] = {}
        for index, (fmt, part) in enumerate(self._parts(shape)):
            specs |= {f"{name}{index}": spec for name, spec in fmt.layout(part).items()}
        return specs | {"order": TensorSpec((sum(self.counts),), torch.int32)}

    @override
    def encode(self, weight: Tensor, search: RangeSearch = MINMAX) -> dict[str, Tensor]:
        """As `WeightFormat.encode`; the channels of highest kurtosis take the most bits."""
        self._parts(tuple(weight.shape))
        return self.encode_ordered(weight, channel_order(weight, self.counts), search)

    def encode_ordered(
        self, weight: Tensor, order: Tensor, search: RangeSearch = MINMAX
    ) -> dict[str, Tensor]:
        """As `encode`, with channels assigned to widths by the caller.

        Args:
            weight: of as many output channels as `counts` sum to.
            order: integer [out_channels], where each channel is to stand among the stored rows.
            search: choice of the clipping ranges.

        Raises:
            FormatError: `order` is not a permutation, or the weight cannot be encoded.
        """
        parts = self._parts(tuple(weight.shape))
        self._check_order(order)
        tensors: dict[str, Tensor] = {}
        stored = order.argsort().to(weight.device)
        segments = torch.split(stored, list(self.counts))
        for index, (channels, (fmt, _)) in enumerate(zip(segments, parts, strict=True)):
            encoded = fmt.encode(weight.detach().index_select(0, channels), search)
            tensors |= {f"{name}{index}": tensor for name, tensor in encoded.items()}
        return tensors | {"order": order.to(weight.device, torch.int32, copy=True)}

    @override
    def segments(self, tensors: Mapping[str, Tensor], shape: Shape) -> tuple[Segment, ...]:
        return tuple(
            Segment(fmt, {name: tensors[f"{name}{index}"] for name in fmt.layout(part)}, part)
            for index, (fmt, part) in enumerate(self._parts(shape))
        )

    @override
    def order(self, tensors: Mapping[str, Tensor]) -> Tensor:
        return tensors["order"].long()

    @override
    def decode(self, tensors: Mapping[str, Tensor], shape: Shape) -> Tensor:
        segments = self.segments(tensors, shape)
        stored = torch.cat([each.format.decode(each.tensors, each.shape) for each in segments])
        return stored.index_select(0, self.order(tensors))

    @override
    def check(self, tensors: Mapping[str, Tensor]) -> None:
        # What a segment stores per row tells nothing of its length, and no check needs it.
        shape = (sum(self.counts), 1)
        for index, segment in enumerate(self.segments(tensors, shape)):
            try:
                segment.format.check(segment.tensors)
            except FormatError as cause:
                raise FormatError(f"segment {index}, {segment.format}: {cause}") from cause
        self._check_order(tensors["order"])

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
    if re.fullmatch(rf"mixed/{part}(,{part})*", name) is None:
        return None
    found = re.findall(r"(u?)int(\d+):(\d+)", name)
    kinds, widths, counts = zip(*found, strict=True)
    if len(set(kinds)) > 1:
        raise FormatError("segments are all 'int' or all 'uint', not both")
    return MixedFormat(tuple(map(int, widths)), tuple(map(int, counts)), not kinds[0])
