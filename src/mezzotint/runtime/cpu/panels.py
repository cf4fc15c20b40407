"""Exact products by the package's own C: weights in panels of sixteen outputs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mezzotint.formats import MixedFormat, UniformFormat, pack
from mezzotint.runtime.cpu import native, native_products
from mezzotint.runtime.cpu.native_products import PANEL, Product
from mezzotint.runtime.cpu.weights import Tile, replaceable, steps, tiles
from mezzotint.runtime.geometry import ConvGeometry
from mezzotint.runtime.layer import QuantLayer

#: As part of what is stored.
MOST_PADDING = 1.02

LINEAR = ConvGeometry((1, 1))


@dataclass(frozen=True, eq=False)
class Panels:
    """Rows of a weight, as `native_products.multiply` wants them.

    Attributes:
        data: int8 [panels, depth / together, 16, together].
        totals: Σ codes, int32 [rows].
        scale: float32 [rows].
        shift: scale · shift, float32 [rows]; None where it is zero.
        bits: width of the codes.
        kernel: channels, height and width.
    """

    data: Tensor
    totals: Tensor
    scale: Tensor
    shift: Tensor | None
    bits: int
    kernel: tuple[int, int, int]

    @property
    def rows(self) -> int:
        """How many outputs."""
        return self.totals.shape[0]

    def codes(self) -> Tensor:
        """As they are stored; of 8-bit weights."""
        channels, *window = self.kernel
        taps = math.prod(window)
        panels, steps_, _, together = self.data.shape
        dense = self.data.permute(0, 2, 1, 3).reshape(panels * PANEL, steps_ * together)
        ordered = dense[: self.rows, : channels * taps].view(self.rows, taps, channels)
        integers = ordered.transpose(1, 2).flatten(1).contiguous()
        return pack(integers.view(torch.uint8) ^ 0x80, self.bits)


@dataclass(frozen=True, eq=False)
class Seen:
    """What the rows of an output are computed of.

    Attributes:
        codes: uint8 [images, height, width, channels], contiguous.
        zero: the code of 0, of what is beyond the edges as well.
        scale: float32, one for as many rows as are alike; NaN spoils them.
        sums: float32 per row, of what it sees; NaN spoils it. None where it makes no difference.
        geometry: how a kernel moves over the codes; `LINEAR` for rows.
        size: height and width of the output.
    """

    codes: Tensor
    zero: int
    scale: Tensor
    sums: Tensor | None
    geometry: ConvGeometry
    size: tuple[int, int]
    rows_alike: int = 1


def panels_of(layer: QuantLayer) -> Iterator[tuple[int, Panels]]:
    """The layer's stored rows in panels, from each start on; 8-bit ones are kept so."""
    kept = are_kept(layer)
    for tile in tiles(layer, itemsize=1, whole=kept or layer.may_hold_unpacked):
        found = _panels(tile)
        if kept:
            layer.keep(found)
        yield tile.start, found


def are_kept(layer: QuantLayer) -> bool:
    """Whether panels stand in for the stored codes: of 8 bits, where that adds hardly a byte."""
    stored = math.prod(layer.weight_shape)
    return replaceable(layer) and padded_size(layer.weight_shape, 8) <= stored * MOST_PADDING


def unpacked_bytes(layer: QuantLayer) -> int:
    """What is held of a weight that is held unpacked, beside what is stored of it."""
    if are_kept(layer):
        return 0
    spec, (outputs, *rest) = layer.weight_format, layer.weight_shape
    if isinstance(spec, MixedFormat):
        parts = list(zip(spec.formats, spec.counts, strict=True))
    else:
        assert isinstance(spec, UniformFormat)
        parts = [(spec, outputs)]
    return sum(padded_size((n, *rest), one.width) + n * _bytes_per_row(one) for one, n in parts)


def _bytes_per_row(spec: UniformFormat) -> int:
    """Of what `Panels` holds beside the data: totals, and what is not a view of what is stored."""
    scaled = spec.width == 1 or spec.granularity == "tensor"
    return 4 * (1 + scaled + (not spec.symmetric))


def padded_size(shape: tuple[int, ...], bits: int) -> int:
    """Bytes of a weight [out, in, …] in panels."""
    together = _together(bits)
    depth = -(-math.prod(shape[1:]) // together) * together
    return -(-shape[0] // PANEL) * PANEL * depth


def _together(bits: int) -> int:
    """How many weights are multiplied to one sum: in 16 bits eight by eight do not fit."""
    return 2 if bits == 8 else 4


def _panels(tile: Tile) -> Panels:
    segment = tile.affine
    channels, *window = segment.shape[1:]
    height, width = window or (1, 1)
    together = _together(segment.bits)
    count, depth = -(-tile.rows // PANEL), -(-tile.columns // together)
    data = torch.empty(count, depth, PANEL, together, dtype=torch.int8, device="cpu")
    totals = torch.empty(tile.rows, dtype=torch.int32, device="cpu")
    packed = segment.codes.contiguous()
    native_products.panels(packed, segment.bits, (channels, height * width), data, totals)
    scale, shift = steps(tile)
    shift = None if shift is None else scale * shift
    return Panels(data, totals, scale.contiguous(), shift, segment.bits, (channels, height, width))


def multiply(seen: Seen, weight: Panels, bias: Tensor | None, out: Tensor) -> None:
    """`out` [rows, outputs] = scale · (Σ x · w - shift · Σ x) + bias, all sums exact.

    `out` is float32 or bfloat16; its rows may lie further apart than their length.
    """
    _, height, width, channels = seen.codes.shape
    geometry, (_, high, wide) = seen.geometry, weight.kernel
    (above, _), (beside, _) = geometry.padding
    product = Product(
        codes=seen.codes.data_ptr(), panels=weight.data.data_ptr(),
        totals=weight.totals.data_ptr(), row_scale=seen.scale.data_ptr(),
        row_sum=_address(seen.sums), scale=weight.scale.data_ptr(), shift=_address(weight.shift),
        bias=_address(bias), out=out.data_ptr(), height=height, width=width, channels=channels,
        kernel_height=high, kernel_width=wide, down=geometry.stride[0], right=geometry.stride[1],
        above=above, beside=beside,
        far=geometry.dilation[0], apart=geometry.dilation[1], out_height=seen.size[0],
        out_width=seen.size[1], rows_alike=seen.rows_alike, rows=len(out), outputs=weight.rows,
        stride=out.stride(0), zero=seen.zero, bits=weight.bits, dtype=native.DTYPES[out.dtype],
    )  # fmt: skip
    native_products.multiply(product, len(out) * weight.rows * channels * high * wide)


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
