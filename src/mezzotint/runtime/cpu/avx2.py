"""Linear layers and convolutions in 8-bit integers, on processors without units for them.

Weights are unpacked at every call, into a layout that is multiplied as it is; those of 8 bits once,
where that adds hardly a byte to what is stored.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from mezzotint.runtime.convolution import onednn_hazard
from mezzotint.runtime.cpu import native, processor
from mezzotint.runtime.cpu.inputs import encode_images, encode_rows, window_sums
from mezzotint.runtime.cpu.panels import (
    LINEAR,
    Panels,
    Seen,
    multiply,
    panels_of,
)
from mezzotint.runtime.cpu.weights import held_or_made, stored_bias, stored_order, uniforms
from mezzotint.runtime.geometry import ConvGeometry
from mezzotint.runtime.layer import QuantLayer
from mezzotint.runtime.layers import QuantConv2d
from mezzotint.runtime.pages import make_room


def available(geometry: ConvGeometry | None, channels: int) -> bool:
    """Whether these products are to be had, and are preferred here.

    They know no channels in groups. With VNNI, oneDNN multiplies four 8-bit integers at a time.
    """
    if not native.multiplies() or (geometry is not None and geometry.groups > 1):
        return False
    if not (processor.VNNI and processor.ONEDNN):
        return True
    return geometry is not None and onednn_hazard(geometry, channels) is not None


def run(layer: QuantLayer, x: Tensor) -> Tensor:
    """The output for rows, or for a batch of images."""
    return _conv2d(layer, x) if isinstance(layer, QuantConv2d) else _linear(layer, x)


def _linear(layer: QuantLayer, x: Tensor) -> Tensor:
    rows = x.reshape(-1, x.shape[-1])
    found = encode_rows(layer, rows)
    codes = found.codes.view(rows.shape[0], 1, 1, -1)
    seen = Seen(codes, found.zero_point, found.scale.contiguous(), found.sums, LINEAR, (1, 1))
    return _output(layer, seen, x.dtype).view(*x.shape[:-1], -1)


def _conv2d(layer: QuantConv2d, x: Tensor) -> Tensor:
    found = encode_images(layer, x)
    geometry = layer.conv_geometry
    height, width = geometry.output_size(x.shape[2], x.shape[3])
    symmetric = all(one is not None and one.symmetric for one in uniforms(layer.weight_format))
    seen = Seen(
        found.codes.permute(0, 2, 3, 1).contiguous(),
        found.zero_point,
        found.scale.contiguous(),
        None if symmetric else window_sums(found.sums, geometry).flatten(),
        geometry,
        (height, width),
        rows_alike=height * width,
    )
    y = _output(layer, seen, x.dtype)
    return y.view(len(x), height, width, layer.out_channels).permute(0, 3, 1, 2)


def _output(layer: QuantLayer, seen: Seen, dtype: torch.dtype) -> Tensor:
    """[rows, outputs], in the layer's own order of outputs."""
    outputs = layer.weight_shape[0]
    rows = seen.codes.shape[0] * seen.size[0] * seen.size[1]
    bias = stored_bias(layer, torch.float32)
    written = dtype if dtype in native.DTYPES else torch.float32
    make_room(rows * outputs * written.itemsize)
    out = torch.empty(rows, outputs, dtype=written, device="cpu")
    for start, weight in _weights(layer):
        columns = slice(start, start + weight.rows)
        multiply(seen, weight, None if bias is None else bias[columns], out[:, columns])
    order = stored_order(layer)
    return (out if order is None else out.index_select(1, order)).to(dtype)


def _weights(layer: QuantLayer) -> Iterable[tuple[int, Panels]]:
    kept = layer.kept
    if isinstance(kept, Panels):
        return ((0, kept),)
    return held_or_made(layer, Panels, lambda: panels_of(layer))
