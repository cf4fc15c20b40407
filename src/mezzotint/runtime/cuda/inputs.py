"""Inputs as the product kernel reads them: channels last, floating or as codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from mezzotint.formats import ActivationFormat
from mezzotint.runtime.cuda import quantize_kernels as kernels

#: The longest token whose scale and codes are computed in one pass, in registers.
LONGEST_TOKEN = 16384
BLOCK = 4096


@dataclass(frozen=True)
class ProductInput:
    """The operand of a product.

    Attributes:
        values: [..., channels], contiguous; floating, or int8 codes less 128 where asymmetric.
        scale: float32 [units]; None where `values` are floating.
        zero_point: int32 [units], less 128 as the codes are; None where it is always zero.
        units: how many parts of `values` have a scale of their own, in order and of equal size.
    """

    values: Tensor
    scale: Tensor | None = None
    zero_point: Tensor | None = None
    units: int = 1


def quantized(x: Tensor, activation: ActivationFormat, units: int) -> ProductInput:
    """Codes with scales from `x` itself.

    Args:
        x: floating, contiguous.
        activation: dynamic.
        units: parts of `x` that have a scale of their own.
    """
    length = x.numel() // max(units, 1)
    scale = torch.empty(units, dtype=torch.float32, device=x.device)
    zero_point = torch.empty(units, dtype=torch.int32, device=x.device)
    codes = torch.empty_like(x, dtype=torch.int8)
    if x.numel():
        if length <= LONGEST_TOKEN:
            block = triton.next_power_of_2(length)
            kernels.tokens_kernel[(units,)](
                x,
                codes,
                scale,
                zero_point,
                length,
                SYMMETRIC=activation.symmetric,
                BLOCK=block,
                num_warps=8 if block > BLOCK else 4,
                **_limits(activation),
            )
        else:
            _find_scales(x, scale, zero_point, activation)
            _encode(x, codes, scale, zero_point, activation)
    return ProductInput(codes, scale, None if activation.symmetric else zero_point, units)


def quantized_statically(
    x: Tensor, activation: ActivationFormat, scale: Tensor, zero_point: Tensor
) -> ProductInput:
    """Codes with a calibrated scale.

    Args:
        x: floating, contiguous.
        activation: calibrated.
        scale: float32 [1], or [n] for n equal parts of `x`.
        zero_point: whole numbers, likewise.
    """
    # Copies: NaN is marked in the scale, and the layer's own must not change.
    scale = scale.clone()
    shifted = zero_point.to(torch.int32) - _shift(activation)
    codes = torch.empty_like(x, dtype=torch.int8)
    if x.numel():
        _encode(x, codes, scale, shifted, activation)
    return ProductInput(codes, scale, None if activation.symmetric else shifted, len(scale))


def _find_scales(
    x: Tensor, scale: Tensor, zero_point: Tensor, activation: ActivationFormat
) -> None:
    units = len(scale)
    length = x.numel() // units
    blocks = triton.cdiv(length, BLOCK)
    lows, highs = torch.empty(2, units, blocks, dtype=torch.float32, device=x.device)
    kernels.ranges_kernel[(blocks, units)](x, lows, highs, length, BLOCK=BLOCK)
    kernels.parameters_kernel[(units,)](
        lows,
        highs,
        scale,
        zero_point,
        blocks,
        HIGH=float(activation.limits[1]),
        SYMMETRIC=activation.symmetric,
        SHIFT=_shift(activation),
        BLOCK=triton.next_power_of_2(blocks),
    )


def _encode(
    x: Tensor, codes: Tensor, scale: Tensor, zero_point: Tensor, activation: ActivationFormat
) -> None:
    units = len(scale)
    length = x.numel() // units
    kernels.codes_kernel[(triton.cdiv(length, BLOCK), units)](
        x, codes, scale, zero_point, length, BLOCK=BLOCK, **_limits(activation)
    )


def _limits(activation: ActivationFormat) -> dict[str, Any]:
    low, high = activation.limits
    return {"LOW": float(low), "HIGH": float(high), "SHIFT": _shift(activation)}


def _shift(activation: ActivationFormat) -> int:
    return 0 if activation.symmetric else 128
