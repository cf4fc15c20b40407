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
        zero_point: int32, per row or image; [1] where all share it.
        scale: float32, per row or image; of an image NaN where it holds NaN.
        sums: float32 Σ (codes - zero_point), per row or pixel [n, h, w]; NaN where that holds NaN.
    """

    codes: Tensor
    zero_point: Tensor
    scale: Tensor
    sums: Tensor

    @property
    def shared_zero_point(self) -> int:
        """The zero point of codes that have one."""
        return int(self.zero_point)

    @property
    def common_scale(self) -> float | None:
        """The scale where all have the same, and it is a number."""
        lowest, highest = torch.aminmax(self.scale)
        return float(lowest) if bool(lowest == highest) else None


def has_own_zero_points(activation: ActivationFormat) -> bool:
    """Return whether each row or image has its own zero point, as oneDNN does not want it."""
    return activation.dynamic and not activation.symmetric


def encode_rows(quantizer: InputQuantizer, rows: Tensor) -> Codes:
    """Codes of [rows, features]."""
    code_range, static = _code_range(quantizer), quantizer.scale
    if has_own_zero_points(quantizer.format):
        return _encode_asymmetric_rows(quantizer.format, rows, code_range)
    if native.available(rows):
        given = None if static is None else static.expand(rows.shape[0])
        codes, sums, scale = native.quantize(rows, given, code_range)
    else:
        if static is None:
            static = quantizer.format.dynamic_parameters(rows, (1,))[0].view(-1)
        scale = static.expand(len(rows))
        codes, sums = _quantize(rows, scale, code_range, code_range.zero)
    return Codes(codes, _stored_zero(code_range), scale, sums)


def _encode_asymmetric_rows(
    activation: ActivationFormat, rows: Tensor, code_range: CodeRange
) -> Codes:
    """Codes of rows that have a zero point each."""
    if native.available(rows):
        zeros = torch.empty(len(rows), dtype=torch.int32, device="cpu")
        codes, sums, scale = native.quantize(rows, None, code_range, zeros)
    else:
        scale, zero = activation.dynamic_parameters(rows, (1,))
        codes, sums = _quantize(rows, scale, code_range, zero)
        scale, zeros = scale.view(-1), _whole(zero.view(-1))
    return Codes(codes, zeros, scale, sums)


def encode_images(quantizer: InputQuantizer, x: Tensor) -> Codes:
    """Codes of [n, c, h, w]."""
    code_range, static = _code_range(quantizer), quantizer.scale
    if has_own_zero_points(quantizer.format):
        return _encode_asymmetric_images(quantizer.format, x, code_range)
    if static is None:
        static = quantizer.format.parameters(*(_peaks(x),) * 2)[0]
    return _encode_images(x, static.expand(len(x)), code_range)


def _encode_asymmetric_images(
    activation: ActivationFormat, x: Tensor, code_range: CodeRange
) -> Codes:
    """Codes of images that have a zero point each."""
    scale, zero = activation.dynamic_parameters(x, (1, 2, 3))
    scale, zeros = scale.view(-1), _whole(zero.view(-1))
    parts = [
        _encode_images(
            image, one, CodeRange(offset, code_range.low, code_range.high, code_range.shift)
        )
        for image, one, offset in zip(
            torch.split(x, 1), torch.split(scale, 1), zeros.tolist(), strict=True
        )
    ]
    codes, sums = torch.cat([part.codes for part in parts]), [part.sums for part in parts]
    return Codes(codes, zeros, torch.cat([part.scale for part in parts]), torch.cat(sums))


def _encode_images(x: Tensor, scale: Tensor, code_range: CodeRange) -> Codes:
    """Codes of images, of a known scale each, that share a zero point."""
    count, channels, height, width = x.shape
    if native.available(x) and x.is_contiguous():
        codes, sums = _from_planes(x, scale, code_range)
    else:
        rows = x.permute(0, 2, 3, 1).reshape(-1, channels)
        each = scale.repeat_interleave(height * width)
        if native.available(x):
            found, total, _ = native.quantize(rows, each, code_range)
        else:
            found, total = _quantize(rows, each, code_range, code_range.zero)
        codes = found.view(count, height, width, channels).permute(0, 3, 1, 2)
        sums = total.view(count, height, width)
    return Codes(codes, _stored_zero(code_range), marked(scale, sums.sum((1, 2))), sums)


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


def _stored_zero(code_range: CodeRange) -> Tensor:
    """The zero point that all have, int32 [1]."""
    zero = code_range.zero + code_range.shift
    return torch.tensor([zero], dtype=torch.int32, device="cpu")


def _whole(zero: Tensor) -> Tensor:
    """Zero points as integers, int32; 0 where they are no numbers."""
    return zero.nan_to_num(nan=0.0).to(torch.int32)


def _quantize(
    rows: Tensor, scale: Tensor, code_range: CodeRange, zero: Tensor | int
) -> tuple[Tensor, Tensor]:
    """Codes and their sums by torch, as `native.quantize` gives them for known scales."""
    steps = (
        (rows.float() / scale.view(-1, 1))
        .round_()
        .add_(zero)
        .clamp_(code_range.low, code_range.high)
    )
    sums = steps.sub(zero).sum(1, dtype=torch.float64).float()
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
