"""Linear layers and convolutions by oneDNN, on 8-bit integer units where there are any.

Weights of 8 bits are turned into oneDNN's layout once, which then replaces the codes as they were
stored: no bytes are added. Narrower ones are unpacked tile by tile at every call, or held so on
demand.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from mezzotint.formats import ActivationFormat
from mezzotint.runtime.convolution import onednn_hazard
from mezzotint.runtime.cpu import native, processor
from mezzotint.runtime.cpu.input_codes import (
    Codes,
    encode_images,
    encode_rows,
    has_own_zero_points,
    marked,
    window_sums,
)
from mezzotint.runtime.cpu.int8 import (
    Int8Kernel,
    in_parts,
    is_symmetric,
    plain_output,
    replaced_tensor,
    unpacked_once,
)
from mezzotint.runtime.cpu.onednn_products import OneDNNRows, in_layout, multiply, windows
from mezzotint.runtime.cpu.onednn_weight import OneDNNWeight
from mezzotint.runtime.cpu.tiles import check_on_cpu, integers, stored_bias, tiles
from mezzotint.runtime.geometry import ConvGeometry
from mezzotint.runtime.kernels import KernelRefusedError, Prepared, Request
from mezzotint.runtime.operands import Conv2d, InputQuantizer, Operation, PackedWeight
from mezzotint.runtime.pages import make_room

#: Users may set other defaults.
_FLOAT: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}


class OneDNNKernel(Int8Kernel):
    """Multiplies with oneDNN: four products to a sum at once where there is VNNI.

    Without VNNI it adds products in pairs, in 16 bits, and takes what fits.
    """

    name = "cpu-int8-onednn"

    @override
    def refuse_products(self, request: Request) -> str | None:
        if not processor.ONEDNN:
            return "needs the 8-bit products of oneDNN, which torch has on x86"
        widest = max(segment.integer_bits or 0 for segment in request.forms)
        if request.activation is not None and _overflows(request.activation, widest):
            return "needs VNNI for weights and inputs this wide; seven bits by eight do without"
        operation = request.operation
        if not isinstance(operation, Conv2d):
            return None
        if operation.groups > 1 and (len(request.forms) > 1 or not is_symmetric(request.forms)):
            # Channels in groups stay together: no segments, no sums of windows.
            return "needs symmetric weights of one width where channels are in groups"
        return onednn_hazard(operation.geometry, request.shape[1])

    @override
    def unpacked_bytes(self, request: Request) -> int:
        return 0 if unpacked_once(request.forms) else math.prod(request.shape)

    @override
    def prepare(
        self, weight: PackedWeight, operation: Operation, *, unpack: bool = False
    ) -> Prepared:
        check_on_cpu(*weight.tensors.values())
        symmetric = is_symmetric(weight.segments)
        replaced = replaced_tensor(weight)
        if replaced is None and not unpack:
            return OneDNNWeight(operation, weight.shape, weight.order, symmetric, weight)
        geometry = operation.geometry if isinstance(operation, Conv2d) else None
        held = tuple(_rows_of(weight, geometry, whole=True))
        extra = math.prod(weight.shape) if replaced is None else 0
        return OneDNNWeight(
            operation, weight.shape, weight.order, symmetric, None, held, replaced, extra
        )

    @override
    def run(
        self, prepared: Prepared, x: Tensor, quantizer: InputQuantizer | None, bias: Tensor | None
    ) -> Tensor:
        assert isinstance(prepared, OneDNNWeight)
        assert quantizer is not None
        check_on_cpu(bias, quantizer.scale)
        operation = prepared.operation
        if not x.numel() or not operation.takes(x, prepared.shape):
            return plain_output(operation, prepared.shape, x, bias)
        if quantizer.several:
            return in_parts(self, prepared, x, quantizer, bias)
        x = x.resolve_neg()
        if isinstance(operation, Conv2d):
            images = x if x.ndim == 4 else x.unsqueeze(0)
            y = self._convolved(prepared, operation, images, quantizer, bias)
            return y if x.ndim == 4 else y.squeeze(0)
        rows = x.reshape(-1, x.shape[-1])
        return self._multiplied(prepared, rows, quantizer, bias).view(*x.shape[:-1], -1)

    def _multiplied(
        self, weight: OneDNNWeight, x: Tensor, quantizer: InputQuantizer, bias: Tensor | None
    ) -> Tensor:
        """The output [rows, out] of rows [rows, in]."""
        codes = encode_rows(quantizer, x)
        codes = replace(codes, scale=marked(codes.scale, codes.sums))
        calibrated = not quantizer.format.dynamic
        product = _Product(weight, codes, None, codes.scale, codes.sums, calibrated)
        if has_own_zero_points(quantizer.format):
            product = _with_common_zero_point(product)
        return _output(product, bias, x.dtype)

    def _convolved(
        self,
        weight: OneDNNWeight,
        operation: Conv2d,
        x: Tensor,
        quantizer: InputQuantizer,
        bias: Tensor | None,
    ) -> Tensor:
        """The output [n, out, h, w] of images [n, c, h, w]."""
        geometry, size = operation.geometry, (x.shape[2], x.shape[3])
        hazard = onednn_hazard(geometry, weight.shape[1], size)
        if has_own_zero_points(quantizer.format) and len(x) > 1:
            # Padding is the zero point, of which oneDNN knows one.
            shared = weight if hazard is not None else _in_layout(weight, geometry)
            parts = [
                self._convolved(shared, operation, y, quantizer, bias) for y in torch.split(x, 1)
            ]
            return torch.cat(parts)
        if hazard is not None:
            if onednn_hazard(geometry, weight.shape[1]) is not None:
                raise KernelRefusedError
            # Seldom, and small: an image within the gaps of a dilated kernel.
            rounded = quantizer.rounded(x, operation)
            shift = None if bias is None else bias.to(x.dtype)
            return operation.apply(rounded, weight.values().to(x.dtype), shift)
        codes = encode_images(quantizer, x)
        height, width = geometry.output_size(*size)
        if weight.symmetric:
            sums = torch.zeros(len(x), height, width, **_FLOAT)
        else:
            sums = window_sums(codes.sums, geometry)
        scale = codes.scale.repeat_interleave(height * width)
        by_windows = _prefers_windows(weight, operation, len(scale))
        if by_windows:
            codes = replace(codes, codes=windows(codes, geometry, (height, width)))
        place = None if by_windows else geometry
        calibrated = not quantizer.format.dynamic
        product = _Product(weight, codes, place, scale, sums.view(-1), calibrated)
        y = _output(product, bias, x.dtype)
        return y.view(len(x), height, width, -1).permute(0, 3, 1, 2)


def _in_layout(weight: OneDNNWeight, geometry: ConvGeometry) -> OneDNNWeight:
    """The same weight in oneDNN's layout, unpacked once for several products."""
    if weight.stored_weight is None:
        return weight
    whole = weight.operation.groups > 1
    held = tuple(_rows_of(weight.stored_weight, geometry, whole=whole))
    return replace(weight, stored_weight=None, held=held)


def _prefers_windows(weight: OneDNNWeight, operation: Conv2d, pixels: int) -> bool:
    """Return whether each pixel's window is best copied out, which makes the convolution a product.

    oneDNN turns the weight of a product into its layout several times faster than that of a
    convolution; where that is done at every call, for few pixels, it takes longer than computing.
    """
    at_every_call = weight.stored_weight is not None
    return at_every_call and operation.groups == 1 and 2 * pixels <= weight.shape[0]


def _overflows(activation: ActivationFormat, weight_bits: int) -> bool:
    """Return whether this processor would add two products in fewer bits than they need."""
    return not processor.VNNI and not processor.pairs_fit(weight_bits, activation.width)


@dataclass(frozen=True, eq=False)
class _Product:
    """A weight by the codes of an input.

    Attributes:
        weight: of the layer.
        codes: of rows or images.
        geometry: of a convolution of images; None for rows.
        scale: float32 per row of the output.
        sums: of the codes that each row is computed of, float32.
        static: whether the scale is calibrated.
        offset: the zero point of each row less that of all codes, float32; the codes then end with
            a row of which each is one above. None where all rows have the same.
    """

    weight: OneDNNWeight
    codes: Codes
    geometry: ConvGeometry | None
    scale: Tensor
    sums: Tensor
    static: bool
    offset: Tensor | None = None

    def multiplied(self, rows: OneDNNRows) -> Tensor:
        """Σ (codes - zero point) · w for some rows of the weight, float32 [rows, outputs]."""
        sums = _as_rows(multiply(self.codes, rows))
        # Σ w is the product with the row of ones.
        return sums if self.offset is None else sums[:-1].addr_(self.offset, sums[-1], alpha=-1)


def _with_common_zero_point(product: _Product) -> _Product:
    """Rows that have a zero point each, as codes that have one, the middle."""
    codes, middle = product.codes, 128
    ones = torch.full((1, codes.codes.shape[1]), middle + 1, dtype=torch.uint8, device="cpu")
    common = torch.tensor([middle], dtype=torch.int32, device="cpu")
    extended = replace(codes, codes=torch.cat([codes.codes, ones]), zero_point=common)
    return replace(product, codes=extended, offset=(codes.zero_point - middle).float())


def _output(product: _Product, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The output as [rows, outputs]."""
    weight, codes, scale = product.weight, product.codes, product.scale
    # Dynamic scales take one way for one row and for many, so that a batch rounds as its parts.
    common = codes.common_scale if product.static else None
    outputs = weight.shape[0]
    added = stored_bias(bias, weight.order, torch.float32)
    added = torch.zeros(outputs, **_FLOAT) if added is None else added
    out: Tensor | None = None
    make_room(len(scale) * outputs * torch.float32.itemsize)  # of the products
    for start, rows in _parts(weight, product.geometry):
        part = added[start : start + rows.rows]
        if rows.rows == outputs and rows.shift is None and common is not None:
            return _as_rows(multiply(codes, rows, common, part)).to(dtype)
        if out is None:
            out = torch.empty(len(scale), outputs, dtype=dtype, device="cpu")
        sums = product.multiplied(rows)
        shift = torch.zeros(rows.rows, **_FLOAT) if rows.shift is None else rows.shift
        _rescale(sums, product, (shift, part), out[:, start : start + rows.rows])
    assert out is not None
    return out if weight.order is None else out.index_select(1, weight.order)


def _parts(weight: OneDNNWeight, geometry: ConvGeometry | None) -> Iterable[tuple[int, OneDNNRows]]:
    """The weight's rows from each start on, ready to multiply rows of codes or images."""
    if weight.stored_weight is not None:
        # Channels in groups stay together.
        whole = weight.operation.groups > 1
        return _rows_of(weight.stored_weight, geometry, whole=whole)
    return weight.held


def _rows_of(
    weight: PackedWeight, geometry: ConvGeometry | None, *, whole: bool
) -> Iterator[tuple[int, OneDNNRows]]:
    for tile in tiles(weight, itemsize=1, whole=whole):
        yield tile.start, in_layout(integers(tile), geometry)


def _as_rows(y: Tensor) -> Tensor:
    """[rows, outputs], of images in channels_last as well."""
    return y if y.ndim == 2 else y.permute(0, 2, 3, 1).flatten(0, 2)


def _rescale(sums: Tensor, product: _Product, columns: tuple[Tensor, Tensor], out: Tensor) -> None:
    """Write (sums - codes · shift) · scale + bias; `columns`: shift and bias."""
    shift, bias = (column.contiguous() for column in columns)
    scale = product.scale
    if native.available(out):
        native.rescale(sums.contiguous(), scale.contiguous(), product.sums, (shift, bias), out)
        return
    out.copy_((sums - product.sums.view(-1, 1) * shift) * scale.view(-1, 1) + bias)
