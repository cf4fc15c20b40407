"""Exact 8-bit products by oneDNN, as torch exposes it: u8 codes by s8 weights, sums in 32 bits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mezzotint.runtime.convolution import Convolution, is_right, unchecked
from mezzotint.runtime.cpu.input_codes import Codes
from mezzotint.runtime.cpu.tiles import IntegerTile
from mezzotint.runtime.geometry import ConvGeometry, Pair
from mezzotint.runtime.kernels import KernelRefusedError


@dataclass(frozen=True, eq=False)
class OneDNNRows:
    """Rows of a weight in oneDNN's own layout.

    Attributes:
        packed: an opaque tensor.
        scale: float32 [rows].
        shift: float32 [rows], w = scale · code - shift; None where it is zero.
        rows: the number of outputs.
        geometry: of a convolution; None where rows of inputs are multiplied.
    """

    packed: Tensor
    scale: Tensor
    shift: Tensor | None
    rows: int
    geometry: ConvGeometry | None

    def integers(self) -> Tensor:
        """The codes as they were given, int8 [rows, columns]."""
        dense = self.packed.to_dense()
        return dense.t().contiguous() if self.geometry is None else dense.flatten(1)


def in_layout(weight: IntegerTile, geometry: ConvGeometry | None = None) -> OneDNNRows:
    """Rows in oneDNN's layout, to be multiplied by rows of codes or by images."""
    scale = weight.scale.contiguous()
    if geometry is None:
        packed = torch.ops.onednn.qlinear_prepack(weight.codes, None)
    else:
        codes = weight.codes.view(len(weight.codes), -1, *geometry.kernel)
        packed = torch.ops.onednn.qconv_prepack(
            codes, scale, 1.0, 0, geometry.stride, geometry.even_padding, geometry.dilation,
            geometry.groups, None,
        )  # fmt: skip
    return OneDNNRows(packed, scale, weight.shift, len(weight.codes), geometry)


def multiply(
    x: Codes, weight: OneDNNRows, scale: float = 1.0, bias: Tensor | None = None
) -> Tensor:
    """The product Σ (x - zero_point) · w, times `scale`, plus bias: float32 [rows, outputs].

    Without the weight's shift. Of a convolution [n, outputs, h, w] in channels_last.

    Raises:
        KernelRefusedError: the first output of a geometry is wrong.
    """
    zero_points = torch.zeros(len(weight.scale), dtype=torch.int32, device="cpu")
    geometry = weight.geometry
    result: Tensor
    if geometry is None:
        result = torch.ops.onednn.qlinear_pointwise(
            x.codes, scale, x.shared_zero_point, weight.packed, weight.scale, zero_points, bias,
            1.0, 0, torch.float32, "none", [], "",
        )  # fmt: skip
        return result
    zero = x.shared_zero_point
    result = torch.ops.onednn.qconv_pointwise(
        geometry.with_odd_padding(x.codes, zero), scale, zero, weight.packed,
        weight.scale, zero_points, bias, geometry.stride, geometry.even_padding, geometry.dilation,
        geometry.groups, 1.0, 0, torch.float32, "none", [], "",
    )  # fmt: skip
    _compare(result, x, weight, scale, bias)
    return result.contiguous(memory_format=torch.channels_last)


def _compare(y: Tensor, x: Codes, weight: OneDNNRows, scale: float, bias: Tensor | None) -> None:
    """Refuse a geometry whose first output is wrong."""
    geometry = weight.geometry
    assert geometry is not None
    key = geometry, weight.rows, tuple(x.codes.shape[1:])
    if not unchecked(key):
        return
    values = (x.codes[:1].float() - x.shared_zero_point) * scale
    rows = weight.integers().float() * weight.scale.view(-1, 1)
    of = Convolution(values, rows.view(weight.rows, -1, *geometry.kernel), bias, geometry)
    if not is_right(key, y, of, tolerance=1e-5):
        raise KernelRefusedError


def windows(x: Codes, geometry: ConvGeometry, size: Pair) -> Tensor:
    """The codes in the window of each output pixel, where `size` of them come out of an image.

    uint8 [n · oh · ow, channels · kh · kw].
    """
    codes, (kernel_h, kernel_w) = geometry.padded(x.codes, x.shared_zero_point), geometry.kernel
    (stride_h, stride_w), (dilation_h, dilation_w) = geometry.stride, geometry.dilation
    image, channel, row, column = codes.stride()
    found = codes.as_strided(
        (len(codes), *size, codes.shape[1], kernel_h, kernel_w),
        (image, row * stride_h, column * stride_w, channel, row * dilation_h, column * dilation_w),
    )
    return found.flatten(3).flatten(0, 2)
