"""Packed weights times inputs: from what a layer holds to launches of the product kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mezzotint.formats import AffineSegment, LookupSegment, Segment
from mezzotint.runtime.gpu.conv import Windows
from mezzotint.runtime.gpu.inputs import Inputs
from mezzotint.runtime.gpu.tuning import INTERPRETED, bucket, launch
from mezzotint.runtime.layer import QuantLayer

_SLOTS = 8
#: Larger powers of two tell the compiler nothing more.
_LARGEST_UNIT = 64


@dataclass(frozen=True)
class Weights:
    """The stored weight of a layer.

    Attributes:
        segments: of its rows, in the order stored.
        order: int64 [out_channels], where each output channel stands among the rows, or None.
        bias: floating [out_channels], or None.
    """

    segments: tuple[Segment, ...]
    order: Tensor | None
    bias: Tensor | None

    @classmethod
    def of(cls, layer: QuantLayer) -> Weights:
        """Views of what the layer stores."""
        tensors = layer.weight_tensors()
        segments = layer.weight_format.segments(tensors, layer.weight_shape)
        return cls(segments, layer.weight_format.order(tensors), layer.bias)

    @property
    def channels(self) -> int:
        """Output channels."""
        return sum(segment.shape[0] for segment in self.segments)


def multiply(inputs: Inputs, weights: Weights, windows: Windows, dtype: torch.dtype) -> Tensor:
    """The product, with bias: `dtype` [pixels, out_channels].

    Args:
        inputs: [n, h, w, channels], or [rows, channels] where `windows` are `ROWS`.
        weights: several segments only where `windows` has one group.
        windows: of the convolution.
        dtype: of the output.
    """
    values = inputs.values
    images = values.numel() // (values.shape[-1] * windows.size[0] * windows.size[1])
    pixels = images * windows.places
    y = torch.empty(pixels, weights.channels, dtype=dtype, device=values.device)
    if not pixels:
        return y
    columns = None if weights.order is None else _inverse(weights.order)
    common = {
        "x": values,
        "y": y,
        "bias": weights.bias,
        "x_scale": inputs.scale,
        "x_zero": inputs.zero_point,
        "pixels": pixels,
        "x_stride": values.shape[-1],
        "y_stride": weights.channels,
        "x_span": pixels // inputs.units,
        "bucket": bucket(pixels),
        "INTEGER": inputs.scale is not None,
        "X_ZERO": inputs.zero_point is not None,
        "HAS_BIAS": weights.bias is not None,
        "HAS_COLUMNS": columns is not None,
        "WIDEN": INTERPRETED and values.dtype == torch.bfloat16,
        "PRECISION": _precision(),
        **_geometry(windows),
    }
    start = 0
    for segment in weights.segments:
        rows = segment.shape[0]
        places = None if columns is None else columns[start : start + rows]
        launch({**common, "columns": places, **_stored(segment), **_shape(segment, common)})
        start += rows
    return y


def _geometry(windows: Windows) -> dict[str, Any]:
    return {
        "height": windows.size[0],
        "width": windows.size[1],
        "out_height": windows.out_size[0],
        "out_width": windows.out_size[1],
        "stride_h": windows.stride[0],
        "stride_w": windows.stride[1],
        "pad_h": windows.padding[0],
        "pad_w": windows.padding[1],
        "dilation_h": windows.dilation[0],
        "dilation_w": windows.dilation[1],
        "KERNEL_H": windows.kernel[0],
        "KERNEL_W": windows.kernel[1],
        "PADDED": windows.padded,
        "groups": windows.groups,
    }


def _stored(segment: Segment) -> dict[str, Any]:
    """Tensors of a segment, and how they are to be read."""
    known: dict[str, Any] = {"codes": segment.codes, "BITS": segment.bits}
    if isinstance(segment, LookupSegment):
        levels = segment.levels
        known |= {"codebook": levels, "scale": None, "zero_point": None}
        known |= {"scale_stride": 0 if len(levels) == 1 else levels.shape[1]}
        return known | {"SYMMETRIC": True, "CODEBOOK": True, "GROUP": 0}
    scale, zero_point = segment.scale, segment.zero_point
    known |= {"scale": scale, "codebook": None, "zero_point": zero_point}
    known |= {"scale_stride": 0 if len(scale) == 1 else scale.shape[1]}
    return known | {
        "SYMMETRIC": zero_point is None,
        "CODEBOOK": False,
        "GROUP": segment.group_size or 0,
    }


def _shape(segment: Segment, common: dict[str, Any]) -> dict[str, Any]:
    """How the kernel walks the columns of a segment: see there."""
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
    """What products of float32 are rounded to, as torch's own."""
    return "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"
