"""The product of packed weights with inputs: one Triton kernel for linears and convolutions.

Weights are read as they are stored (`formats.packing`). A byte of a plane holds codes of several
slots, so each is loaded once and used for all of them; codes become operands of the tensor cores
in registers, and no unpacked weight is ever written to memory. The transposed product W·xᵀ is
computed: on Hopper only the first operand may come from registers.

A linear is a convolution with one tap over images of one pixel. Taps are walked one after another
wherever each slot holds whole input channels (their number is a multiple of eight), so that
neighbouring threads read neighbouring channels; else every position finds its own channel and tap.

Imports Triton: to be imported only where kernels are launched.
"""

import triton
import triton.language as tl

from mezzotint.runtime.cuda.device_functions import integers, pixel_of


@triton.jit
def product_kernel(
    x,  # [pixels of the input, x_stride], int8 codes or floating
    y,  # [pixels, y_stride]
    codes,  # uint8 [groups · rows, BITS · slot bytes]
    scale,  # float32 or bfloat16 [groups · rows or 1, scale groups]
    zero_point,  # uint8, as scale
    codebook,  # bfloat16 [groups · rows or 1, 2^BITS], or int8 [1, 2^BITS] with scales
    center,  # float32, as scale
    bias,  # [channels of the output]
    columns,  # int64 [rows]: the output channel of each
    x_scale,  # float32 [pixels / x_span]
    x_zero,  # int32, as x_scale
    pixels,
    rows,
    slot_units,
    channels,
    x_stride,
    y_stride,
    height,
    width,
    out_height,
    out_width,
    stride_h,
    stride_w,
    pad_top,
    pad_left,
    dilation_h,
    dilation_w,
    scale_stride,
    x_span,
    bucket,
    KERNEL_H: tl.constexpr,
    KERNEL_W: tl.constexpr,
    UNIT: tl.constexpr,
    BY_TAP: tl.constexpr,
    WHOLE: tl.constexpr,
    BITS: tl.constexpr,
    SYMMETRIC: tl.constexpr,
    CODEBOOK: tl.constexpr,
    SCALED: tl.constexpr,
    CENTERED: tl.constexpr,
    GROUP: tl.constexpr,
    INTEGER: tl.constexpr,
    X_ZERO: tl.constexpr,
    PADDED: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_COLUMNS: tl.constexpr,
    WIDEN: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """y[:, n] = Σ x · w[n] (+ bias) over BLOCK_M pixels and BLOCK_N output channels.

    UNIT: a power of two that divides the length of a slot, which is `slot_units · UNIT` channels
    by tap, else positions. WHOLE: the input channels fill the slots. GROUP: weights per scale,
    0 for one per row.
    CODEBOOK: weights are levels. SCALED: they have scales. CENTERED: integers of one bit, ±1, count
    from the center of two levels. X_ZERO: inputs have a zero point. PADDED: windows reach over
    images.
    WIDEN: multiply in float32 (the interpreter has no bfloat16).
    """
    TAPS: tl.constexpr = KERNEL_H * KERNEL_W
    OFFSET: tl.constexpr = 0.5 if BITS == 1 else float(1 << (BITS - 1))
    # Two products where a zero point does not fit: Σ xw = Σ x(w + shift) - shift Σ x.
    SHIFTED: tl.constexpr = INTEGER and (not SYMMETRIC) and BITS == 8
    SUMMED: tl.constexpr = SHIFTED or CENTERED
    ALIGNED: tl.constexpr = GROUP > 0 and TAPS == 1 and UNIT % BLOCK_K == 0 and GROUP % BLOCK_K == 0
    blocks_n = tl.cdiv(rows, BLOCK_N)
    program = tl.program_id(0)
    n = (program % blocks_n) * BLOCK_N + tl.arange(0, BLOCK_N)
    m = (program // blocks_n) * BLOCK_M + tl.arange(0, BLOCK_M)
    present_n = n < rows
    present_m = m < pixels
    group = tl.program_id(1)
    row = (group * rows + n).to(tl.int64)
    slot = slot_units * UNIT
    if WHOLE:
        channels = slot * 8 if BY_TAP else channels

    image = (m // (out_height * out_width)).to(tl.int64)
    within = m % (out_height * out_width)
    origin_y = (within // out_width) * stride_h - pad_top
    origin_x = (within % out_width) * stride_w - pad_left

    plane = slot * TAPS if BY_TAP else slot
    code_rows = codes + row[:, None] * (plane * BITS)
    if INTEGER and X_ZERO:
        zero_x = tl.load(x_zero + m // x_span, mask=present_m, other=0)
    if not CODEBOOK and not SYMMETRIC and GROUP == 0:
        zero_w = tl.load(zero_point + row * scale_stride, mask=present_n, other=0).to(tl.int32)
    else:
        zero_w = tl.zeros([BLOCK_N], tl.int32)
    if INTEGER and GROUP == 0:
        total = tl.zeros([BLOCK_N, BLOCK_M], tl.int32)
    else:
        total = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
    sum_w = tl.zeros([BLOCK_N], tl.int32)
    sum_x = tl.zeros([BLOCK_M], tl.int32)

    steps = tl.cdiv(slot, BLOCK_K)
    for step in range((TAPS if BY_TAP else 1) * steps):
        if BY_TAP:
            if TAPS == 1:
                # Known to be aligned: loads of many bytes.
                tap = 0
                local = step * BLOCK_K + tl.arange(0, BLOCK_K)
                position = local
            else:
                tap = step // steps
                local = (step % steps) * BLOCK_K + tl.arange(0, BLOCK_K)
                position = local * TAPS + tap
            at_y = origin_y + (tap // KERNEL_W) * dilation_h
            at_x = origin_x + (tap % KERNEL_W) * dilation_w
            pixel, inside_m = pixel_of(present_m, image, at_y, at_x, height, width)
        else:
            tap = 0
            local = step * BLOCK_K + tl.arange(0, BLOCK_K)
            position = local
        in_slot = local < slot
        loads = present_n[:, None] & in_slot[None, :]
        current = tl.load(code_rows + position[None, :], mask=loads, other=0)
        for j in tl.static_range(8):
            # The codes of slot j: bits j·BITS and up of the planes.
            code = current >> ((j * BITS) % 8)
            if (j * BITS) % 8 + BITS >= 8 and j < 7:
                above = code_rows + position[None, :] + ((j * BITS) // 8 + 1) * plane
                current = tl.load(above, mask=loads, other=0)
                if (j * BITS) % 8 + BITS > 8:
                    code = code | (current << (8 - (j * BITS) % 8))
            code = code & ((1 << BITS) - 1)

            # The inputs that they meet.
            if BY_TAP:
                channel = j * slot + local
                k = channel * TAPS + tap
                real = in_slot if WHOLE else in_slot & (channel < channels)
                offset = pixel[:, None] * x_stride + (group * channels + channel)[None, :]
                inside = inside_m[:, None] & real[None, :]
            else:
                k = j * slot + local
                channel = k // TAPS
                real = in_slot & (channel < channels)
                present = present_m[:, None] & real[None, :]
                at_y = origin_y[:, None] + (((k % TAPS) // KERNEL_W) * dilation_h)[None, :]
                at_x = origin_x[:, None] + ((k % KERNEL_W) * dilation_w)[None, :]
                place, inside = pixel_of(present, image[:, None], at_y, at_x, height, width)
                offset = place * x_stride + (group * channels + channel)[None, :]
            values = tl.load(x + offset, mask=inside, other=0)

            if INTEGER:
                if X_ZERO and PADDED:
                    # Padding is exactly zero: the zero point.
                    outside = tl.where(real[None, :], zero_x[:, None], 0).to(tl.int8)
                    values = tl.where(inside, values, outside)
                if GROUP == 0:
                    if CODEBOOK:
                        w = tl.load(codebook + code.to(tl.int32))
                    else:
                        w = integers(code, zero_w[:, None], BITS, SYMMETRIC)
                    if X_ZERO:
                        w = tl.where(real[None, :], w, 0).to(tl.int8)
                    total = tl.dot(w, tl.trans(values), total, out_dtype=tl.int32)
                    if X_ZERO:
                        sum_w += tl.sum(w.to(tl.int32), 1)
                    if SUMMED:
                        steps_x = values.to(tl.int32)
                        if X_ZERO:
                            steps_x = tl.where(real[None, :], steps_x - zero_x[:, None], 0)
                        sum_x += tl.sum(steps_x, 1)
                else:
                    # A product for each group of weights that the block touches.
                    first = (j * slot + step * BLOCK_K) // GROUP
                    if ALIGNED:
                        last = first + 1
                    else:
                        end = tl.minimum(step * BLOCK_K + BLOCK_K, slot) + j * slot
                        last = tl.maximum(tl.minimum(end, channels * TAPS) - 1, 0) // GROUP + 1
                    for g in range(first, last):
                        at = row * scale_stride + g
                        here = real & (k // GROUP == g)
                        if SYMMETRIC:
                            zero_g = zero_w
                        else:
                            zero_g = tl.load(zero_point + at, mask=present_n, other=0).to(tl.int32)
                        w = integers(code, zero_g[:, None], BITS, SYMMETRIC)
                        if X_ZERO or not ALIGNED:
                            w = tl.where(here[None, :], w, 0).to(tl.int8)
                        part = tl.dot(w, tl.trans(values), out_dtype=tl.int32)
                        if X_ZERO:
                            part -= tl.sum(w.to(tl.int32), 1)[:, None] * zero_x[None, :]
                        if SHIFTED:
                            steps_x = values.to(tl.int32)
                            if X_ZERO:
                                steps_x = steps_x - zero_x[:, None]
                            steps_x = tl.where(here[None, :], steps_x, 0)
                            part -= (zero_g[:, None] - 128) * tl.sum(steps_x, 1)[None, :]
                        scale_w = tl.load(scale + at, mask=present_n, other=0.0).to(tl.float32)
                        total += part.to(tl.float32) * scale_w[:, None]
            else:
                if CODEBOOK and SCALED:
                    w = tl.load(codebook + code.to(tl.int32)).to(tl.float32)
                elif CODEBOOK:
                    book = codebook + row[:, None] * scale_stride
                    w = tl.load(book + code.to(tl.int32), mask=present_n[:, None], other=0.0).to(
                        tl.float32
                    )
                elif GROUP == 0:
                    w = code.to(tl.float32)
                    w = w - OFFSET if SYMMETRIC else w - zero_w[:, None].to(tl.float32)
                elif ALIGNED:
                    at = row * scale_stride + (j * slot + step * BLOCK_K) // GROUP
                    w = code.to(tl.float32)
                    if SYMMETRIC:
                        w = w - OFFSET
                    else:
                        zero_g = tl.load(zero_point + at, mask=present_n, other=0).to(tl.float32)
                        w = w - zero_g[:, None]
                    w = w * tl.load(scale + at, mask=present_n, other=0.0).to(tl.float32)[:, None]
                else:
                    at = row[:, None] * scale_stride + (k // GROUP)[None, :]
                    known = present_n[:, None] & real[None, :]
                    w = code.to(tl.float32)
                    if SYMMETRIC:
                        w = w - OFFSET
                    else:
                        w = w - tl.load(zero_point + at, mask=known, other=0).to(tl.float32)
                    w = w * tl.load(scale + at, mask=known, other=0.0).to(tl.float32)
                w = w.to(x.dtype.element_ty)
                if WIDEN:
                    w = w.to(tl.float32)
                    values = values.to(tl.float32)
                total = tl.dot(w, tl.trans(values), total, input_precision=PRECISION)

    if INTEGER and GROUP == 0:
        if X_ZERO:
            total -= sum_w[:, None] * zero_x[None, :]
        if SHIFTED:
            total -= (zero_w[:, None] - 128) * sum_x[None, :]
    result = total.to(tl.float32)
    if INTEGER:
        scale_x = tl.load(x_scale + m // x_span, mask=present_m, other=0.0)
        result = result * scale_x[None, :]
        if SYMMETRIC and BITS == 1 and not (CODEBOOK or CENTERED):
            result = result * 0.5
    if SCALED and GROUP == 0:
        scale_w = tl.load(scale + row * scale_stride, mask=present_n, other=0.0)
        result = result * scale_w[:, None].to(tl.float32)
    if CENTERED:
        middle = tl.load(center + row * scale_stride, mask=present_n, other=0.0)
        result += middle[:, None] * (sum_x.to(tl.float32) * scale_x)[None, :]
    column = tl.load(columns + row, mask=present_n, other=0) if HAS_COLUMNS else row
    if HAS_BIAS:
        added = tl.load(bias + column, mask=present_n, other=0.0)
        result += added.to(tl.float32)[:, None]
    place = y + m[None, :].to(tl.int64) * y_stride + column[:, None]
    written = present_n[:, None] & present_m[None, :]
    tl.store(place, result.to(y.dtype.element_ty), mask=written)
