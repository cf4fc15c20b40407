"""Packed weights, a few rows at a time: as integers for the 8-bit units, or as floating values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from mezzotint.errors import UsageError
from mezzotint.formats import (
    CodebookFormat,
    MixedFormat,
    Segment,
    UniformFormat,
    WeightFormat,
    from_bits,
)
from mezzotint.runtime.cpu import native
from mezzotint.runtime.forms import stands_for_codes
from mezzotint.runtime.layer import QuantLayer

#: What is unpacked at a time should stay in the cache of a core until it is used.
TILE_BYTES = 1 << 22
#: Products of a number of columns that is no multiple of a vector's lanes take a third longer.
TILE_ROWS = 64

_BY_ROWS = (UniformFormat, CodebookFormat)

Unpacked = TypeVar("Unpacked")
"""A few rows as a kernel multiplies them."""


@dataclass(frozen=True)
class Tile:
    """Some of a layer's stored rows.

    Attributes:
        start: the first, counted over all segments.
        segment: what they are part of.
        first: the first, counted within the segment.
        rows: how many.
    """

    start: int
    segment: Segment
    first: int
    rows: int

    @property
    def stop(self) -> int:
        """The row after the last, over all segments."""
        return self.start + self.rows

    @property
    def columns(self) -> int:
        """Weights per row."""
        return math.prod(self.segment.shape[1:])

    def part(self, name: str) -> Tensor:
        """The tile's rows of a stored tensor that has one row for each output, or one for all."""
        tensor = self.segment.tensors[name]
        return tensor if len(tensor) == 1 else tensor[self.first : self.first + self.rows]


def check_on_cpu(layer: QuantLayer) -> None:
    """Raise UsageError where what the layer stores is somewhere else: C reads bare addresses."""
    for tensor in (*layer._buffers.values(), *layer._parameters.values()):
        if tensor is None or tensor.device.type == "cpu":
            continue
        if not stands_for_codes(tensor):
            raise UsageError(
                f"a layer's input is on the cpu, but its weight on {tensor.device}; move the input "
                "to it, or the model to the cpu"
            )


def uniforms(weight: WeightFormat) -> Sequence[UniformFormat | None]:
    """The formats of all outputs; None for what is not uniform."""
    if isinstance(weight, MixedFormat):
        return weight.formats
    return (weight if isinstance(weight, UniformFormat) else None,)


def replaceable(layer: QuantLayer) -> bool:
    """Whether codes in a layout for products take no more bytes than as they are stored."""
    spec = layer.weight_format
    return isinstance(spec, UniformFormat) and spec.width == 8


@dataclass(frozen=True, eq=False)
class _Held(Generic[Unpacked]):
    """Unpacked weights between calls, all of one kind."""

    kind: type[Unpacked]
    weights: tuple[tuple[int, Unpacked], ...]


def held_or_made(
    layer: QuantLayer, kind: type[Unpacked], make: Callable[[], Iterable[tuple[int, Unpacked]]]
) -> Iterable[tuple[int, Unpacked]]:
    """What `make` unpacks of the layer's rows, each with its start; once where it may be held."""
    if not layer.may_hold_unpacked:
        return make()
    held = layer.held
    if not isinstance(held, _Held) or held.kind is not kind:
        held = _Held(kind, tuple(make()))
        layer.hold(held)
    weights: tuple[tuple[int, Unpacked], ...] = held.weights
    return weights


def tiles(layer: QuantLayer, itemsize: int, whole: bool = False) -> Iterator[Tile]:
    """Every stored row of the layer's weight, in tiles of about `TILE_BYTES` when unpacked.

    With `whole`, a tile is a segment.
    """
    start = 0
    for segment in layer.weight_format.segments(layer.weight_tensors(), layer.weight_shape):
        rows = segment.shape[0]
        step = TILE_BYTES // (math.prod(segment.shape[1:]) * itemsize)
        step = max(TILE_ROWS, step // TILE_ROWS * TILE_ROWS)
        # Only of formats known here can some rows be read alone.
        step = rows if whole or not isinstance(segment.format, _BY_ROWS) else step
        for first in range(0, rows, step):
            yield Tile(start + first, segment, first, min(step, rows - first))
        start += rows


def stored_order(layer: QuantLayer) -> Tensor | None:
    """The stored row of each output, int64; None where they stand in order."""
    # Asking for the stored tensors would release the codes that are kept in another form.
    if isinstance(layer.weight_format, UniformFormat):
        return None
    return layer.weight_format.order(layer.weight_tensors())


def stored_bias(layer: QuantLayer, dtype: torch.dtype) -> Tensor | None:
    """The bias, contiguous, as the rows of the weight are stored."""
    if layer.bias is None:
        return None
    # Whoever lends a bias may lend a view.
    bias, order = layer.bias.detach().resolve_neg().to(dtype).contiguous(), stored_order(layer)
    return bias if order is None else torch.empty_like(bias).index_copy_(0, order, bias)


@dataclass(frozen=True)
class Integers:
    """w = scale · (codes - shift).

    Attributes:
        codes: int8 [rows, columns].
        scale: float32 [rows].
        shift: float32 [rows]; None where it is zero.
    """

    codes: Tensor
    scale: Tensor
    shift: Tensor | None


def integers(tile: Tile) -> Integers:
    """A tile of a uniform format with one scale per row or tensor."""
    spec = tile.segment.format
    assert isinstance(spec, UniformFormat)
    codes = torch.empty(tile.rows, tile.columns, dtype=torch.int8, device="cpu")
    packed = tile.part("codes").contiguous()
    if native.available():
        native.unpack(packed, spec.width, tile.columns, codes)
    else:
        unsigned = spec.codes({"codes": packed}, (tile.rows, tile.columns))
        if spec.width == 1:
            codes.copy_(unsigned).mul_(2).sub_(1)
        else:
            # In two's complement the wrap is exact.
            codes.copy_((unsigned - 2 ** (spec.width - 1)).view(torch.int8))
    return Integers(codes, *steps(tile))


def steps(tile: Tile) -> tuple[Tensor, Tensor | None]:
    """Scale and shift of a tile's `Integers`."""
    spec = tile.segment.format
    assert isinstance(spec, UniformFormat)
    scale = from_bits(tile.part("scale"), spec.scale_dtype).view(-1).expand(tile.rows)
    # At one bit the codes ±1 count in halves of the scale.
    step = 2 if spec.width == 1 else 1
    shift = None
    if not spec.symmetric:
        half = 0.5 if spec.width == 1 else 2 ** (spec.width - 1)
        shift = (tile.part("zero_point").view(-1).float() - half).mul_(step).expand(tile.rows)
    return scale if step == 1 else scale / step, shift


def floats(tile: Tile, dtype: torch.dtype) -> Tensor:
    """A tile as floating values [rows, columns]."""
    spec = tile.segment.format
    if not isinstance(spec, _BY_ROWS):
        return spec.decode(tile.segment.tensors, tile.segment.shape).flatten(1).to(dtype)
    out = torch.empty(tile.rows, tile.columns, dtype=dtype, device="cpu")
    parts = {name: tile.part(name).contiguous() for name in tile.segment.tensors}
    if not native.available(out):
        return out.copy_(spec.decode(parts, (tile.rows, tile.columns)))
    if isinstance(spec, UniformFormat):
        native.dequantize(parts["codes"], spec.width, _affine(tile, spec), out)
    else:
        native.look_up(parts["codes"], spec.width, spec.levels(parts), out)
    return out


def _affine(tile: Tile, spec: UniformFormat) -> tuple[Tensor, Tensor, int]:
    """Scale and zero point, float32 [rows, groups], and the size of a group."""
    scale = from_bits(tile.part("scale"), spec.scale_dtype)
    if spec.symmetric:
        zero = torch.full_like(scale, spec.offset)
    else:
        zero = tile.part("zero_point").float()
    size = min(spec.group_size or tile.columns, tile.columns)
    shape = (tile.rows, scale.shape[1])
    return scale.expand(shape).contiguous(), zero.expand(shape).contiguous(), size
