"""Inputs as unsigned 8-bit codes, in one pass over them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mezzotint.formats import ActivationFormat
from mezzotint.runtime.convolution import conv2d
from mezzotint.runtime.cpu import native
from mezzotint.runtime.cpu.native import CodeRange
from mezzotint.runtime.geometry import ConvGeometry
from mezzotint.runtime.operands import InputQuantizer


@dataclass(frozen=True)
class Codes:
    """A quantized input: x ≈ scale · (codes - zero_point).

    Attributes:
        codes: uint8 [rows, features], or [n, c, h, w] in channels_last.
        zero_point: the same for all.
        scale: float32, per row or image; of an image NaN where it holds NaN.
        sums: float32 Σ (codes - zero_point), per row or pixel [n, h, w]; NaN where that holds NaN.
    """

    codes: Tensor
    zero_point: int
    scale: Tensor
    sums: Tensor

    @property
    def common_scale(self) -> float | None:
        """The scale where all have the same, and it is a number."""
        lowest, highest = torch.aminmax(self.scale)
        return float(lowest) if bool(lowest == highest) else None


def has_codes(activation: ActivationFormat | None) -> bool:
    """Return whether all inputs of a call share a zero point, as oneDNN wants it."""
    return activation is not None and (activation.static or activation.symmetric)


def encode_rows(quantizer: InputQuantizer, rows: Tensor) -> Codes:
    """Codes of [rows, features]."""
    code_range, static = _code_range(quantizer), quantizer.scale
    if native.available(rows):
        given = None if static is None else static.expand(rows.shape[0])
        codes, sums, scale = native.quantize(rows, given, code_range)
    else:
        if static is None:
            static = quantizer.format.dynamic_parameters(rows, (1,))[0].view(-1)
        scale = static.expand(len(rows))
        codes, sums = _quantize(rows, scale, code_range)
    return Codes(codes, code_range.zero + code_range.shift, scale, sums)


def encode_images(quantizer: InputQuantizer, x: Tensor) -> Codes:
    """Codes of [n, c, h, w]."""
    code_range, static = _code_range(quantizer), quantizer.scale
    count, channels, height, width = x.shape
    if static is None:
        static = quantizer.format.parameters(*(_peaks(x),) * 2)[0]
    scale = static.expand(count)
    if native.available(x) and x.is_contiguous():
        codes, sums = _from_planes(x, scale, code_range)
    else:
        rows = x.permute(0, 2, 3, 1).reshape(-1, channels)
        each = scale.repeat_interleave(height * width)
        if native.available(x):
            found, total, _ = native.quantize(rows, each, code_range)
        else:
            found, total = _quantize(rows, each, code_range)
        codes = found.view(count, height, width, channels).permute(0, 3, 1, 2)
        sums = total.view(count, height, width)
    return Codes(codes, code_range.zero + code_range.shift, marked(scale, sums.sum((1, 2))), sums)


def _from_planes(x: Tensor, scale: Tensor, code_range: CodeRange) -> tuple[Tensor, Tensor]:
    """Codes in channels_last and their sums per pixel, of images with channels apart."""
    count, channels, height, width = x.shape
    codes = torch.empty(count, height * width, channels, dtype=torch.uint8, device="cpu")
    sums = torch.empty(count, height, width, dtype=torch.float32, device="cpu")
    for image, one, place, total in zip(x, scale.tolist(), codes, sums, strict=True):
        native.quantize_image(image, one, code_range, place, total)
    return codes.view(count, height, width, channels).permute(0, 3, 1, 2), sums


def _peaks(x: Tensor) -> Tensor:
    """The largest magnitude of each image; NaN where it holds one."""
    if not native.available(x):
        return x.abs().amax((1, 2, 3)).float()
    rows = x.flatten(2).flatten(0, 1) if x.is_contiguous() else x.permute(0, 2, 3, 1).flatten(0, 2)
    return native.peaks(rows.contiguous()).view(len(x), -1).amax(1)


def _code_range(quantizer: InputQuantizer) -> CodeRange:
    """The codes that inputs are rounded to."""
    low, high = quantizer.format.limits
    zero = 0 if quantizer.zero_point is None else int(quantizer.zero_point)
    return CodeRange(zero, low, high, shift=-low)


def _quantize(rows: Tensor, scale: Tensor, code_range: CodeRange) -> tuple[Tensor, Tensor]:
    """Codes and their sums by torch, as `native.quantize` gives them for known scales."""
    steps = (
        (rows.float() / scale.view(-1, 1))
        .round_()
        .add_(code_range.zero)
        .clamp_(code_range.low, code_range.high)
    )
    sums = steps.sub(code_range.zero).sum(1, dtype=torch.float64).float()
    return steps.nan_to_num_(nan=code_range.low).add_(code_range.shift).to(torch.uint8), sums


def marked(scale: Tensor, sums: Tensor) -> Tensor:
    """NaN has no code; the scale can carry it to the output."""
    return torch.where(sums.isnan(), sums, scale)


def window_sums(sums: Tensor, geometry: ConvGeometry) -> Tensor:
    """Sums of what each output pixel's window holds of `sums` [n, h, w]: float32 [n, oh, ow]."""
    ones = torch.ones(1, 1, *geometry.kernel, dtype=torch.float32, device="cpu")
    known = sums.nan_to_num(nan=0.0).unsqueeze(1)
    with torch.autocast("cpu", enabled=False):
        return conv2d(known, ones, None, replace(geometry, groups=1)).squeeze(1)
