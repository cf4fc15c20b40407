"""Inputs as signed 8-bit codes: exactly what `ActivationFormat` computes, in one pass.

An input is seen as units [units, length] that have a scale each: tokens of a linear, images of a
convolution. Codes of asymmetric formats are stored less 128, and so are their zero points. Rounding
is to the nearest, ties to even. NaN has no code: it becomes the scale of its unit, and so reaches
the output.

Imports Triton: to be imported only where kernels are launched.
"""

import triton
import triton.language as tl


@triton.jit
def _rounded(steps):
    """Round to the nearest integer, ties to even, magnitudes below 2^22.

    The sum with 1.5 · 2^23 has no bits left for a fraction.
    """
    return (steps + 12582912.0) - 12582912.0


@triton.jit
def _parameters(low, high, LIMIT: tl.constexpr, SYMMETRIC: tl.constexpr):
    """Scale and zero point, float32, of a range that holds 0: `ActivationFormat.parameters`."""
    tiny = 1.1754943508222875e-38
    if SYMMETRIC:
        scale = tl.maximum(tl.div_rn(tl.maximum(-low, high), LIMIT), tiny)
        zero = scale * 0.0
    else:
        scale = tl.maximum(tl.div_rn(high, LIMIT) - tl.div_rn(low, LIMIT), tiny)
        zero = _rounded(tl.minimum(tl.div_rn(-low, scale), LIMIT))
    return scale, zero


@triton.jit
def _codes(values, scale, zero, LOW: tl.constexpr, HIGH: tl.constexpr):
    """Codes of float32 values, and which of them have none."""
    steps = tl.div_rn(values, scale)
    # Values beyond have the code of the end of the range, whatever the zero point.
    codes = _rounded(tl.minimum(tl.maximum(steps, -1024.0), 1024.0)) + zero
    return tl.minimum(tl.maximum(codes, LOW), HIGH), steps != steps


@triton.jit
def tokens_kernel(
    x,  # [units, length]
    codes,  # int8, as x
    scale,  # float32 [units]
    zero_point,  # int32 [units]
    length,
    LOW: tl.constexpr,
    HIGH: tl.constexpr,
    SYMMETRIC: tl.constexpr,
    SHIFT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Range, scale and codes of one unit, read once: `length` is at most BLOCK."""
    unit = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    values = tl.load(x + unit * length + at, mask=at < length, other=0.0).to(tl.float32)
    low = tl.minimum(tl.min(values, 0), 0.0)
    high = tl.maximum(tl.max(values, 0), 0.0)
    one, zero = _parameters(low, high, HIGH, SYMMETRIC)
    found, lost = _codes(values, one, zero, LOW, HIGH)
    tl.store(codes + unit * length + at, (found - SHIFT).to(tl.int8), mask=at < length)
    one = tl.where(tl.max(lost.to(tl.int32), 0) > 0, float("nan"), one)
    tl.store(scale + unit, one)
    tl.store(zero_point + unit, zero.to(tl.int32) - SHIFT)


@triton.jit
def ranges_kernel(x, lows, highs, length, BLOCK: tl.constexpr):
    """Lowest and highest value of each block, and 0: float32 [units, blocks]."""
    block = tl.program_id(0)
    unit = tl.program_id(1).to(tl.int64)
    at = block * BLOCK + tl.arange(0, BLOCK)
    values = tl.load(x + unit * length + at, mask=at < length, other=0.0).to(tl.float32)
    place = unit * tl.num_programs(0) + block
    tl.store(lows + place, tl.minimum(tl.min(values, 0), 0.0))
    tl.store(highs + place, tl.maximum(tl.max(values, 0), 0.0))


@triton.jit
def parameters_kernel(
    lows,  # float32 [units, blocks]
    highs,  # as lows
    scale,  # float32 [units]
    zero_point,  # int32 [units]
    blocks,
    HIGH: tl.constexpr,
    SYMMETRIC: tl.constexpr,
    SHIFT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Scale and zero point of units from the ranges of their blocks, at most BLOCK."""
    unit = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    low = tl.min(tl.load(lows + unit * blocks + at, mask=at < blocks, other=0.0), 0)
    high = tl.max(tl.load(highs + unit * blocks + at, mask=at < blocks, other=0.0), 0)
    one, zero = _parameters(low, high, HIGH, SYMMETRIC)
    tl.store(scale + unit, one)
    tl.store(zero_point + unit, zero.to(tl.int32) - SHIFT)


@triton.jit
def codes_kernel(
    x,  # [units, length]
    codes,  # int8, as x
    scale,  # float32 [units]
    zero_point,  # int32 [units]
    length,
    LOW: tl.constexpr,
    HIGH: tl.constexpr,
    SHIFT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Codes for known scales, a block of a unit each."""
    unit = tl.program_id(1).to(tl.int64)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    values = tl.load(x + unit * length + at, mask=at < length, other=0.0).to(tl.float32)
    one = tl.load(scale + unit)
    zero = (tl.load(zero_point + unit) + SHIFT).to(tl.float32)
    found, lost = _codes(values, one, zero, LOW, HIGH)
    tl.store(codes + unit * length + at, (found - SHIFT).to(tl.int8), mask=at < length)
    # Blocks of a unit may race here: all write the same, and a unit with NaN is lost anyway.
    tl.store(scale + unit, float("nan"), mask=tl.max(lost.to(tl.int32), 0) > 0)
