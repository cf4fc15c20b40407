"""Products by the package's own C, exact at all widths: weights in panels of sixteen outputs.

Weights are unpacked at every call, into a layout that is multiplied as it is; those of 8 bits once,
where that adds hardly a byte to what is stored.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from mezzotint.formats import Segment
from mezzotint.runtime.cpu import native
from mezzotint.runtime.cpu.input_codes import encode_images, encode_rows, window_sums
from mezzotint.runtime.cpu.int8 import (
    Int8Kernel,
    Int8Weight,
    is_symmetric,
    replaced_tensor,
    unpacked_once,
)
from mezzotint.runtime.cpu.native import PANEL, address
from mezzotint.runtime.cpu.tiles import Tile, book_of, check_on_cpu, steps, stored_bias, tiles
from mezzotint.runtime.geometry import ConvGeometry, Pair
from mezzotint.runtime.kernels import Prepared, Request
from mezzotint.runtime.operands import Conv2d, InputQuantizer, Operation, PackedWeight
from mezzotint.runtime.pages import make_room

#: The most bytes of panels that replace stored codes, as part of these.
MOST_PADDING = 1.02

#: A linear layer is a convolution of images of one pixel.
ONE_PIXEL = ConvGeometry((1, 1))


@dataclass(frozen=True, eq=False)
class Panels:
    """Rows of a weight, as `native.multiply` wants them.

    Attributes:
        data: int8 [panels, depth / together, 16, together].
        totals: Σ codes, int32 [rows].
        scale: float32 [rows].
        shift: float32 [rows], w = scale · code - shift; None where it is zero.
        bits: width of the integers.
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
        """The number of outputs."""
        return self.totals.shape[0]

    def integers(self) -> Tensor:
        """The codes, int8 [rows, columns]."""
        channels, *window = self.kernel
        taps = math.prod(window)
        panels, depth, _, together = self.data.shape
        dense = self.data.permute(0, 2, 1, 3).reshape(panels * PANEL, depth * together)
        ordered = dense[: self.rows, : channels * taps].view(self.rows, taps, channels)
        return ordered.transpose(1, 2).flatten(1).contiguous()


@dataclass(frozen=True, eq=False)
class CodedImages:
    """The codes of an input, and where windows lie over them.

    Attributes:
        codes: uint8 [images, height, width, channels], contiguous.
        zero_point: the code of 0, of padding as well: int32, one for `rows_per_scale` rows of the
            output.
        scale: float32, one for `rows_per_scale` rows of the output; NaN spoils them.
        sums: of the codes in the window of each row, float32; NaN spoils it. None where weights
            are symmetric.
        geometry: of the convolution; `ONE_PIXEL` for rows.
        out_size: height and width of the output.
        rows_per_scale: pixels of an output image, or 1.
    """

    codes: Tensor
    zero_point: Tensor
    scale: Tensor
    sums: Tensor | None
    geometry: ConvGeometry
    out_size: Pair
    rows_per_scale: int = 1


class AVX2Kernel(Int8Kernel):
    """Multiplies with AVX2: 8-bit weights in 16 bits, narrower ones in 8."""

    name = "cpu-int8-avx2"

    @override
    def refuse_products(self, request: Request) -> str | None:
        if not native.multiplies():
            return "needs the package's C functions and a processor with AVX2"
        return "knows no channels in groups" if request.operation.groups > 1 else None

    @override
    def unpacked_bytes(self, request: Request) -> int:
        if _replaces(request.forms):
            return 0
        return sum(map(panel_bytes, request.forms))

    @override
    def prepare(
        self, weight: PackedWeight, operation: Operation, *, unpack: bool = False
    ) -> Prepared:
        check_on_cpu(*weight.tensors.values())
        symmetric = is_symmetric(weight.segments)
        replaced = replaced_tensor(weight) if _replaces(weight.segments) else None
        if replaced is None and not unpack:
            return Int8Weight(operation, weight.shape, weight.order, symmetric, weight)
        held = tuple(panels_of(weight, whole=True))
        extra = sum(panel_bytes(tile.segment) for tile in tiles(weight, 1, whole=True))
        if replaced is not None:
            extra -= weight.tensors[replaced].nbytes
        return Int8Weight(
            operation, weight.shape, weight.order, symmetric, None, held, replaced, max(extra, 0)
        )

    @override
    def multiplied(
        self, weight: Int8Weight, x: Tensor, quantizer: InputQuantizer, bias: Tensor | None
    ) -> Tensor:
        found = encode_rows(quantizer, x)
        codes = found.codes.view(len(x), 1, 1, -1)
        scale = found.scale.contiguous()
        zero_point = found.zero_point.expand(len(x)).contiguous()
        images = CodedImages(codes, zero_point, scale, found.sums, ONE_PIXEL, (1, 1))
        return _output(weight, images, bias, x.dtype)

    @override
    def convolved(
        self,
        weight: Int8Weight,
        operation: Conv2d,
        x: Tensor,
        quantizer: InputQuantizer,
        bias: Tensor | None,
    ) -> Tensor:
        found, geometry = encode_images(quantizer, x), operation.geometry
        height, width = geometry.output_size(x.shape[2], x.shape[3])
        images = CodedImages(
            found.codes.permute(0, 2, 3, 1).contiguous(),
            found.zero_point.expand(len(x)).contiguous(),
            found.scale.contiguous(),
            None if weight.symmetric else window_sums(found.sums, geometry).flatten(),
            geometry,
            (height, width),
            rows_per_scale=height * width,
        )
        y = _output(weight, images, bias, x.dtype)
        return y.view(len(x), height, width, -1).permute(0, 3, 1, 2)


def _replaces(segments: Iterable[Segment]) -> bool:
    """Return whether panels replace the stored codes: of 8 bits, where that adds hardly a byte."""
    forms = tuple(segments)
    if not unpacked_once(forms):
        return False
    return padded_size(forms[0].shape, 8) <= math.prod(forms[0].shape) * MOST_PADDING


def panels_of(weight: PackedWeight, *, whole: bool = False) -> Iterator[tuple[int, Panels]]:
    """The stored rows in panels, from each start on; with `whole`, a segment at a time."""
    for tile in tiles(weight, itemsize=1, whole=whole):
        yield tile.start, _panels(tile)


def panel_bytes(segment: Segment) -> int:
    """Bytes of a segment in panels, beside views of what is stored."""
    scale, rows = segment.scale, segment.shape[0]
    viewed = scale is not None and scale.dtype == torch.float32 and len(scale) == rows
    per_row = 4 * (1 + (segment.bits == 1 or not viewed) + (not is_symmetric([segment])))
    return padded_size(segment.shape, _width(segment)) + rows * per_row


def padded_size(shape: tuple[int, ...], bits: int) -> int:
    """Bytes of the codes of a weight [out, in, …] in panels."""
    together = _together(bits)
    depth = -(-math.prod(shape[1:]) // together) * together
    return -(-shape[0] // PANEL) * PANEL * depth


def _width(segment: Segment) -> int:
    """Bits of a segment's integers, which the kernel takes."""
    assert segment.integer_bits is not None
    return segment.integer_bits


def _together(bits: int) -> int:
    """Weights that are multiplied to one sum: in 16 bits eight by eight do not fit."""
    return 2 if bits == 8 else 4


def _panels(tile: Tile) -> Panels:
    segment, bits = tile.segment, _width(tile.segment)
    channels, *window = segment.shape[1:]
    height, width = window or (1, 1)
    together = _together(bits)
    count, depth = -(-tile.rows // PANEL), -(-tile.columns // together)
    data = torch.empty(count, depth, PANEL, together, dtype=torch.int8, device="cpu")
    totals = torch.empty(tile.rows, dtype=torch.int32, device="cpu")
    packed, book = segment.codes.contiguous(), book_of(segment)
    codes = native.PackedCodes(packed, segment.bits, book, channels, height * width)
    native.panels(codes, data, totals)
    scale, shift = steps(segment)
    return Panels(data, totals, scale.contiguous(), shift, bits, (channels, height, width))


def _output(
    weight: Int8Weight, images: CodedImages, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """[rows, outputs], in the layer's own order of outputs."""
    outputs = weight.shape[0]
    rows = images.codes.shape[0] * images.out_size[0] * images.out_size[1]
    shift = stored_bias(bias, weight.order, torch.float32)
    written = dtype if dtype in native.DTYPES else torch.float32
    make_room(rows * outputs * written.itemsize)
    out = torch.empty(rows, outputs, dtype=written, device="cpu")
    stored = weight.stored_weight
    for start, part in weight.held if stored is None else panels_of(stored):
        assert isinstance(part, Panels)
        columns = slice(start, start + part.rows)
        multiply(images, part, None if shift is None else shift[columns], out[:, columns])
    return (out if weight.order is None else out.index_select(1, weight.order)).to(dtype)


def multiply(images: CodedImages, weight: Panels, bias: Tensor | None, out: Tensor) -> None:
    """`out` [rows, outputs] = x_scale · (scale · Σ x · w - shift · Σ x) + bias, all sums exact.

    `out` is float32 or bfloat16; its rows may lie further apart than their length.
    """
    _, height, width, channels = images.codes.shape
    geometry, (_, kernel_h, kernel_w) = images.geometry, weight.kernel
    product = native.Product(
        codes=images.codes.data_ptr(), panels=weight.data.data_ptr(),
        totals=weight.totals.data_ptr(), row_scale=images.scale.data_ptr(),
        row_sum=address(images.sums), row_zero=images.zero_point.data_ptr(),
        scale=weight.scale.data_ptr(), shift=address(weight.shift), bias=address(bias),
        out=out.data_ptr(), height=height, width=width, channels=channels, kernel_h=kernel_h,
        kernel_w=kernel_w, stride_h=geometry.stride[0], stride_w=geometry.stride[1],
        pad_top=geometry.padding[0][0], pad_left=geometry.padding[1][0],
        dilation_h=geometry.dilation[0], dilation_w=geometry.dilation[1],
        out_height=images.out_size[0], out_width=images.out_size[1],
        rows_per_scale=images.rows_per_scale, rows=len(out), outputs=weight.rows,
        out_stride=out.stride(0), bits=weight.bits, dtype=native.DTYPES[out.dtype],
    )  # fmt: skip
    native.multiply(product, len(out) * weight.rows * channels * kernel_h * kernel_w)
