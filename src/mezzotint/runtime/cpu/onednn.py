"""Linear layers and convolutions by oneDNN, on 8-bit integer units where there are any.

Weights of 8 bits are turned into oneDNN's layout once, which then replaces the codes as they were
stored: no bytes are added. Narrower ones are unpacked tile by tile at every call, or held so on
demand.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mezzotint.formats import ActivationFormat, UniformFormat, pack
from mezzotint.runtime.convolution import onednn_hazard
from mezzotint.runtime.cpu import native, processor
from mezzotint.runtime.cpu.inputs import (
    Codes,
    encode_images,
    encode_rows,
    marked,
    window_sums,
)
from mezzotint.runtime.cpu.onednn_products import Weights, multiply, prepare, windows
from mezzotint.runtime.cpu.weights import (
    held_or_made,
    integers,
    replaceable,
    stored_bias,
    stored_order,
    tiles,
    uniforms,
)
from mezzotint.runtime.kernels import Request
from mezzotint.runtime.layer import QuantLayer
from mezzotint.runtime.layers import QuantConv2d
from mezzotint.runtime.pages import make_room

#: Users may set other defaults.
_FLOAT: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}


def refuse(request: Request) -> str | None:
    """Why oneDNN cannot compute a layer of uniform weights and codes that it could multiply."""
    if not processor.ONEDNN:
        return "needs the 8-bit products of oneDNN, which torch has on x86"
    for weight in uniforms(request.weight):
        assert weight is not None
        if request.activation is not None and _overflows(request.activation, weight.width):
            others = "" if request.groups > 1 else ", or the package's C functions and AVX2,"
            return (
                f"needs VNNI{others} for weights and inputs this wide; seven bits by eight do "
                "without"
            )
    if request.geometry is None:
        return None
    taps = request.geometry.kernel[0] * request.geometry.kernel[1]
    hazard = onednn_hazard(request.geometry, request.columns // taps)
    return hazard or (_refuse_groups(request) if request.groups > 1 else None)


def is_safe(layer: QuantLayer, x: Tensor) -> bool:
    """Whether oneDNN computes the layer rightly for an input of this size."""
    geometry, channels = layer.conv_geometry, layer.weight_shape[1]
    return geometry is None or onednn_hazard(geometry, channels, (x.shape[-2], x.shape[-1])) is None


def run(layer: QuantLayer, x: Tensor) -> Tensor:
    """The output for rows, or for a batch of images."""
    return _conv2d(layer, x) if isinstance(layer, QuantConv2d) else _linear(layer, x)


def _refuse_groups(request: Request) -> str | None:
    """Channels in groups stay together: no segments, no sums of windows."""
    weight = request.weight
    if not isinstance(weight, UniformFormat) or not weight.symmetric:
        return "needs symmetric weights of one width where channels are in groups"
    return None


@dataclass(frozen=True)
class KeptWeights:
    """8-bit codes in oneDNN's layout, from which the stored ones can be had again."""

    weights: Weights

    def codes(self) -> Tensor:
        """As they are stored."""
        return pack(self.weights.integers().view(torch.uint8) ^ 0x80, 8)


def _linear(layer: QuantLayer, x: Tensor) -> Tensor:
    codes = encode_rows(layer, x.reshape(-1, x.shape[-1]))
    codes = replace(codes, scale=marked(codes.scale, codes.sums))
    return _assembled(layer, codes, codes.scale, codes.sums, x.dtype).view(*x.shape[:-1], -1)


def _conv2d(layer: QuantConv2d, x: Tensor) -> Tensor:
    codes = encode_images(layer, x)
    height, width = layer.output_size(x.shape[2], x.shape[3])
    sums = torch.zeros(len(x), height, width, **_FLOAT)
    if not all(one.symmetric for one in uniforms(layer.weight_format) if one is not None):
        sums = window_sums(codes.sums, layer.conv_geometry)
    scale = codes.scale.repeat_interleave(height * width)
    if _prefers_windows(layer, len(scale)):
        seen = windows(codes, layer.conv_geometry, (height, width))
        codes = replace(codes, codes=seen)
    y = _assembled(layer, codes, scale, sums.view(-1), x.dtype)
    return y.view(len(x), height, width, layer.out_channels).permute(0, 3, 1, 2)


def _prefers_windows(layer: QuantConv2d, pixels: int) -> bool:
    """Whether each pixel's window is best copied out, which makes the convolution a product.

    oneDNN turns the weight of a product into its layout several times faster than that of a
    convolution; where that is done at every call, for few pixels, it takes longer than computing.
    """
    at_every_call = layer.kept is None and not layer.may_hold_unpacked and not replaceable(layer)
    return at_every_call and layer.groups == 1 and 2 * pixels <= layer.out_channels


def _assembled(
    layer: QuantLayer, codes: Codes, scale: Tensor, sums: Tensor, dtype: torch.dtype
) -> Tensor:
    """The output as [rows, outputs]; `scale` and `sums` are per row."""
    static = layer.activation_format is not None and layer.activation_format.static
    # Dynamic scales take one way for one row and for many, so that a batch rounds as its parts.
    common = codes.common_scale if static else None
    outputs = layer.weight_shape[0]
    bias = stored_bias(layer, torch.float32)
    bias = torch.zeros(outputs, **_FLOAT) if bias is None else bias
    out: Tensor | None = None
    make_room(len(scale) * outputs * torch.float32.itemsize)  # of the products
    for start, weight in _weights(layer, as_rows=codes.codes.ndim == 2):
        part = bias[start : start + weight.rows]
        if weight.rows == outputs and weight.shift is None and common is not None:
            return _rows(multiply(codes, weight, common, part)).to(dtype)
        if out is None:
            out = torch.empty(len(scale), outputs, dtype=dtype, device="cpu")
        product = _rows(multiply(codes, weight))
        shift = torch.zeros(weight.rows, **_FLOAT) if weight.shift is None else weight.shift
        _rescale(product, scale, sums, (shift, part), out[:, start : start + weight.rows])
    assert out is not None
    order = stored_order(layer)
    return out if order is None else out.index_select(1, order)


def _rows(y: Tensor) -> Tensor:
    """[rows, outputs], of images in channels_last as well."""
    return y if y.ndim == 2 else y.permute(0, 2, 3, 1).flatten(0, 2)


def _rescale(
    product: Tensor, scale: Tensor, sums: Tensor, columns: tuple[Tensor, Tensor], out: Tensor
) -> None:
    if native.available(out):
        shift, bias = (column.contiguous() for column in columns)
        native.rescale(product.contiguous(), scale.contiguous(), sums, (shift, bias), out)
        return
    shift, bias = columns
    out.copy_((product - sums.view(-1, 1) * shift) * scale.view(-1, 1) + bias)


def _weights(layer: QuantLayer, *, as_rows: bool) -> Iterable[tuple[int, Weights]]:
    """The layer's stored rows from each start on, ready to multiply rows of codes or images."""
    kept = layer.kept
    if isinstance(kept, KeptWeights):
        return ((0, kept.weights),)
    return held_or_made(layer, Weights, lambda: _prepared(layer, as_rows=as_rows))


def _prepared(layer: QuantLayer, *, as_rows: bool) -> Iterator[tuple[int, Weights]]:
    geometry = None if as_rows else layer.conv_geometry
    replaced = replaceable(layer)
    whole = replaced or layer.groups > 1 or layer.may_hold_unpacked
    for tile in tiles(layer, itemsize=1, whole=whole):
        weights = prepare(integers(tile), geometry)
        if replaced:
            layer.keep(KeptWeights(weights))
        yield tile.start, weights


def _overflows(activation: ActivationFormat, weight_bits: int) -> bool:
    """Whether this processor would add two products in fewer bits than they need."""
    return not processor.VNNI and not processor.pairs_fit(weight_bits, activation.width)
