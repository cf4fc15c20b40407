"""Packed weights by inputs: from stored tensors to launches of the product kernel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mezzotint.formats import AffineSegment, Segment
from mezzotint.runtime.cuda.conv import Windows
from mezzotint.runtime.cuda.inputs import ProductInput
from mezzotint.runtime.cuda.tuning import INTERPRETED, bucket, launch
from mezzotint.runtime.operands import PackedWeight

_SLOTS = 8
#: Larger powers of two tell the compiler nothing more.
_LARGEST_UNIT = 64


def multiply(
    inputs: ProductInput,
    weight: PackedWeight,
    bias: Tensor | None,
    windows: Windows,
    dtype: torch.dtype,
) -> Tensor:
    """The product, with bias: `dtype` [pixels, out_channels].

    Args:
        inputs: [n, h, w, channels], or [rows, channels] where `windows` are `ROWS`.
        weight: of several segments only where `windows` has one group.
        bias: floating [out_channels], or None.
        windows: of the convolution.
        dtype: of the output.
    """
    values = inputs.values
    images = values.numel() // (values.shape[-1] * windows.size[0] * windows.size[1])
    pixels = images * windows.places
    y = torch.empty(pixels, weight.shape[0], dtype=dtype, device=values.device)
    if not pixels:
        return y
    columns = None if weight.order is None else _inverse(weight.order)
    common = {
        "x": values,
        "y": y,
        "bias": bias,
        "x_scale": inputs.scale,
        "x_zero": inputs.zero_point,
        "pixels": pixels,
        "x_stride": values.shape[-1],
        "y_stride": weight.shape[0],
        "x_span": pixels // inputs.units,
        "bucket": bucket(pixels),
        "INTEGER": inputs.scale is not None,
        "X_ZERO": inputs.zero_point is not None,
        "HAS_BIAS": bias is not None,
        "HAS_COLUMNS": columns is not None,
        "WIDEN": INTERPRETED and values.dtype == torch.bfloat16,
        "PRECISION": _precision(),
        **_geometry(windows),
    }
    start = 0
    for segment in weight.segments:
        rows = segment.shape[0]
        places = None if columns is None else columns[start : start + rows]
        launch({**common, "columns": places, **_stored(segment, common), **_shape(segment, common)})
        start += rows
    return y


def _geometry(windows: Windows) -> dict[str, Any]:
    geometry = windows.geometry
    return {
        "height": windows.size[0],
        "width": windows.size[1],
        "out_height": windows.out_size[0],
        "out_width": windows.out_size[1],
        "stride_h": geometry.stride[0],
        "stride_w": geometry.stride[1],
        "pad_top": geometry.padding[0][0],
        "pad_left": geometry.padding[1][0],
        "dilation_h": geometry.dilation[0],
        "dilation_w": geometry.dilation[1],
        "KERNEL_H": geometry.kernel[0],
        "KERNEL_W": geometry.kernel[1],
        "PADDED": windows.padded,
        "groups": geometry.groups,
    }


def _stored(segment: Segment, common: dict[str, Any]) -> dict[str, Any]:
    """Tensors of a segment, and how they are to be read."""
    known: dict[str, Any] = {
        "codes": segment.codes, "scale": segment.scale, "zero_point": None, "codebook": None,
        "center": None, "BITS": segment.bits, "SYMMETRIC": True, "CODEBOOK": False,
        "SCALED": segment.scale is not None, "CENTERED": False, "GROUP": 0,
    }  # fmt: skip
    by_row = segment.scale
    if isinstance(segment, AffineSegment):
        zero_point, group = segment.zero_point, segment.group_size or 0
        known |= {"zero_point": zero_point, "SYMMETRIC": zero_point is None, "GROUP": group}
    elif segment.two_levels and common["INTEGER"]:
        center, by_row = segment.line
        known |= {"center": center, "scale": by_row, "SCALED": True, "CENTERED": True}
    else:
        known |= {"codebook": segment.levels, "CODEBOOK": True}
        by_row = segment.levels if by_row is None else by_row
    assert by_row is not None
    return known | {"scale_stride": 0 if len(by_row) == 1 else by_row.shape[1]}


def _shape(segment: Segment, common: dict[str, Any]) -> dict[str, Any]:
    """Constants by which the kernel walks the columns of a segment; gemm.py explains them."""
    outputs, channels, *_ = segment.shape
    taps = common["KERNEL_H"] * common["KERNEL_W"]
    grouped = isinstance(segment, AffineSegment) and segment.group_size is not None
    whole = channels % _SLOTS == 0
    # Integer products of a group stand alone: its positions had better follow each other.
    by_tap = taps == 1 or (whole and not (grouped and common["INTEGER"]))
    slot = -(-(channels if by_tap else channels * taps) // _SLOTS)
    unit = min(slot & -slot, _LARGEST_UNIT)
    return {
        "rows": outputs // common["groups"],
        "channels": channels,
        "slot_units": slot // unit,
        "UNIT": unit,
        "BY_TAP": by_tap,
        "WHOLE": whole and by_tap,
    }


def _inverse(order: Tensor) -> Tensor:
    """The output channel of each stored row."""
    places = torch.arange(len(order), device=order.device)
    return torch.empty_like(order).scatter_(0, order, places)


def _precision() -> str:
    """The precision of float32 products, which torch's own follow, too."""
    return "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"
