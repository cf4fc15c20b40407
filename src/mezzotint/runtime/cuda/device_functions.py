"""Functions of the product kernel: places of inputs, and values of codes.

Imports Triton: to be imported only where kernels are launched.
"""

import triton
import triton.language as tl


@triton.jit
def pixel_of(present, image, y, x, height, width):
    """Offset of a pixel among [n, h, w], and whether there is one."""
    inside = present & (y >= 0) & (y < height) & (x >= 0) & (x < width)
    return (image * height + y) * width + x, inside


@triton.jit
def integers(code, zero_point, BITS: tl.constexpr, SYMMETRIC: tl.constexpr):
    """Codes as signed 8-bit integers: what they are worth in steps of the scale.

    Half a step at one symmetric bit; less a shift of `zero_point - 128` at eight asymmetric ones,
    whose range has 511 values.
    """
    code = code.to(tl.int32)
    if SYMMETRIC:
        if BITS == 1:
            value = 2 * code - 1
        else:
            value = code - (1 << (BITS - 1))
    elif BITS == 8:
        value = code - 128
    else:
        value = code - zero_point
    return value.to(tl.int8)
