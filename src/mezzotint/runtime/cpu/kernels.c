/* What torch does slowly on a processor: unpack, dequantize, quantize and rescale, one pass each.
 *
 * Plain pointers, no headers but C's own; called through ctypes on ranges of rows, so that several
 * threads may share a tensor. Every function has the same result as the torch code it stands for,
 * bit for bit; native.py says what the arguments are.
 */
#include "common.h"

#include <float.h>
#include <math.h>

/* int8 [rows, count]: code - 2^(bits - 1); at one bit ±1. */
API MULTI void mz_unpack(
    const uint8_t *packed, int64_t rows, int64_t count, int bits, int8_t *out) {
    const int64_t width = bits * ((count + SLOTS - 1) / SLOTS);
    const uint8_t half = (uint8_t)(1u << (bits - 1));
    for (int64_t row = 0; row < rows; row++) {
        uint8_t *codes = (uint8_t *)out + row * count;
        unpack_row(packed + row * width, count, bits, codes);
        if (bits == 1)
            for (int64_t i = 0; i < count; i++) codes[i] = (uint8_t)(2 * codes[i] - 1);
        else
            for (int64_t i = 0; i < count; i++) codes[i] = (uint8_t)(codes[i] - half);
    }
}

/* scale * (code - zero), float32 or bfloat16 [rows, count]; `groups` scales and zeros a row. */
API MULTI void mz_dequantize(
    const uint8_t *packed, int64_t rows, int64_t count, int bits, const float *scale,
    const float *zero, int64_t groups, int64_t group_size, uint8_t *scratch, void *out, int dtype) {
    const int64_t width = bits * ((count + SLOTS - 1) / SLOTS);
    for (int64_t row = 0; row < rows; row++) {
        unpack_row(packed + row * width, count, bits, scratch);
        for (int64_t group = 0; group < groups; group++) {
            const int64_t start = group * group_size;
            const int64_t end = group + 1 == groups ? count : start + group_size;
            const float s = scale[row * groups + group], z = zero[row * groups + group];
            if (dtype == FLOAT32) {
                float *to = (float *)out + row * count;
                for (int64_t i = start; i < end; i++) to[i] = ((float)scratch[i] - z) * s;
            } else {
                uint16_t *to = (uint16_t *)out + row * count;
                for (int64_t i = start; i < end; i++)
                    to[i] = narrow(((float)scratch[i] - z) * s);
            }
        }
    }
}

/* levels[code], float32 or bfloat16 [rows, count]; a table of 2^bits levels a row, `stride` apart. */
API MULTI void mz_look_up(
    const uint8_t *packed, int64_t rows, int64_t count, int bits, const float *levels,
    int64_t stride, uint8_t *scratch, void *out, int dtype) {
    const int64_t width = bits * ((count + SLOTS - 1) / SLOTS);
    for (int64_t row = 0; row < rows; row++) {
        const float *table = levels + row * stride;
        unpack_row(packed + row * width, count, bits, scratch);
        if (dtype == FLOAT32) {
            float *to = (float *)out + row * count;
            for (int64_t i = 0; i < count; i++) to[i] = table[scratch[i]];
        } else {
            uint16_t *to = (uint16_t *)out + row * count;
            for (int64_t i = 0; i < count; i++) to[i] = narrow(table[scratch[i]]);
        }
    }
}

static inline __attribute__((always_inline)) float at(const void *x, int64_t i, int dtype) {
    return dtype == FLOAT32 ? ((const float *)x)[i] : widen(((const uint16_t *)x)[i]);
}

static inline __attribute__((always_inline)) const void *row_of(
    const void *x, int64_t row, int64_t stride, int dtype) {
    return (const char *)x + row * stride * (dtype == FLOAT32 ? 4 : 2);
}

/* The largest magnitude of each row; NaN where the row holds one. */
static inline __attribute__((always_inline)) float peak_of(
    const void *x, int64_t count, int dtype) {
    uint32_t peak = 0;
    for (int64_t i = 0; i < count; i++) {
        /* Magnitudes are ordered as their bits are, and NaN comes last. */
        float value = at(x, i, dtype);
        uint32_t bits;
        memcpy(&bits, &value, 4);
        bits &= 0x7fffffff;
        peak = bits > peak ? bits : peak;
    }
    float value;
    memcpy(&value, &peak, 4);
    return value;
}

static inline __attribute__((always_inline)) void peaks(
    const void *x, int64_t rows, int64_t count, int64_t stride, float *out, int dtype) {
    for (int64_t row = 0; row < rows; row++)
        out[row] = peak_of(row_of(x, row, stride, dtype), count, dtype);
}

API MULTI void mz_peaks(
    const void *x, int64_t rows, int64_t count, int64_t stride, float *out, int dtype) {
    if (dtype == FLOAT32) peaks(x, rows, count, stride, out, FLOAT32);
    else peaks(x, rows, count, stride, out, BFLOAT16);
}

/* One code; what is NaN becomes the lowest. */
static inline __attribute__((always_inline)) float code_of(
    float quotient, float zero, float low, float high) {
    float code = rintf(quotient) + zero;
    code = code > low ? code : low;
    return code < high ? code : high;
}

static inline __attribute__((always_inline)) void quantize(
    const void *x, int64_t rows, int64_t count, int64_t stride, float *scale, float top,
    float zero, float low, float high, int shift, uint8_t *out, float *sums, int dtype) {
    for (int64_t row = 0; row < rows; row++) {
        const void *from = row_of(x, row, stride, dtype);
        uint8_t *to = out + row * count;
        if (top > 0) {
            const float exact = peak_of(from, count, dtype) / top;
            scale[row] = exact < FLT_MIN ? FLT_MIN : exact;
        }
        const float s = scale[row];
        int64_t total = 0;
        int32_t bad = 0;
        for (int64_t start = 0; start < count; start += 4096) {
            const int64_t end = start + 4096 < count ? start + 4096 : count;
            int32_t sum = 0;
            for (int64_t i = start; i < end; i++) {
                const float quotient = at(from, i, dtype) / s;
                const int32_t code = (int32_t)code_of(quotient, zero, low, high);
                bad |= quotient != quotient;
                sum += code;
                to[i] = (uint8_t)(code + shift);
            }
            total += sum;
        }
        sums[row] = bad ? NAN : (float)(total - (int64_t)zero * count);
    }
}

/* uint8 codes plus `shift`, and Σ (code - zero), of [rows, count] rows `stride` values apart.
 *
 * With `top` above 0 the scale of each row is found first: its largest magnitude / top. A row that
 * holds NaN has the sum NaN. */
API MULTI void mz_quantize(
    const void *x, int64_t rows, int64_t count, int64_t stride, float *scale, float top,
    float zero, float low, float high, int shift, uint8_t *out, float *sums, int dtype) {
    if (dtype == FLOAT32)
        quantize(x, rows, count, stride, scale, top, zero, low, high, shift, out, sums, FLOAT32);
    else
        quantize(x, rows, count, stride, scale, top, zero, low, high, shift, out, sums, BFLOAT16);
}

enum { TILE = 64, BLOCK = 8 };

/* 8 x 8 bytes: swaps the halves of the upper and lower rows across, then quarters, then bytes. */
static inline __attribute__((always_inline)) void transpose_block(
    const uint8_t *from, uint8_t *to, int64_t stride) {
    static const uint64_t masks[] = {0x00000000ffffffff, 0x0000ffff0000ffff, 0x00ff00ff00ff00ff};
    uint64_t rows[BLOCK];
    for (int k = 0; k < BLOCK; k++) memcpy(rows + k, from + k * TILE, BLOCK);
    for (int step = 0, span = BLOCK / 2; span > 0; step++, span /= 2)
        for (int k = 0; k < BLOCK; k++) {
            if (k & span) continue;
            const uint64_t crossing = ((rows[k] >> 8 * span) ^ rows[k + span]) & masks[step];
            rows[k + span] ^= crossing;
            rows[k] ^= crossing << 8 * span;
        }
    for (int k = 0; k < BLOCK; k++) memcpy(to + k * stride, rows + k, BLOCK);
}

/* The tile's `down` rows of `across` bytes become columns of `to`, whose rows are `stride` apart. */
static inline __attribute__((always_inline)) void transpose_tile(
    const uint8_t *tile, int64_t down, int64_t across, uint8_t *to, int64_t stride) {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    const int64_t below = down / BLOCK * BLOCK, beside = across / BLOCK * BLOCK;
#else
    const int64_t below = 0, beside = 0;
#endif
    for (int64_t i = 0; i < beside; i += BLOCK)
        for (int64_t j = 0; j < below; j += BLOCK)
            transpose_block(tile + j * TILE + i, to + i * stride + j, stride);
    for (int64_t i = 0; i < across; i++)
        for (int64_t j = i < beside ? below : 0; j < down; j++)
            to[i * stride + j] = tile[j * TILE + i];
}

static inline __attribute__((always_inline)) void quantize_pixels(
    const void *x, int64_t channels, int64_t pixels, int64_t first, int64_t last, float scale,
    float zero, float low, float high, int shift, uint8_t *out, float *sums, int dtype) {
    uint8_t tile[TILE * TILE];
    for (int64_t p = first; p < last; p += TILE) {
        const int64_t across = last - p < TILE ? last - p : TILE;
        int32_t sum[TILE] = {0}, bad[TILE] = {0};
        for (int64_t c = 0; c < channels; c += TILE) {
            const int64_t down = channels - c < TILE ? channels - c : TILE;
            for (int64_t j = 0; j < down; j++)
                for (int64_t i = 0; i < across; i++) {
                    const float quotient = at(x, (c + j) * pixels + p + i, dtype) / scale;
                    const int32_t code = (int32_t)code_of(quotient, zero, low, high);
                    bad[i] |= quotient != quotient;
                    sum[i] += code;
                    tile[j * TILE + i] = (uint8_t)(code + shift);
                }
            transpose_tile(tile, down, across, out + p * channels + c, channels);
        }
        for (int64_t i = 0; i < across; i++)
            sums[p + i] = bad[i] ? NAN : (float)(sum[i] - (int64_t)zero * channels);
    }
}

/* As mz_quantize, from [channels, pixels] to [pixels, channels]: pixels first to last of an image,
 * sums per pixel. */
API MULTI void mz_quantize_pixels(
    const void *x, int64_t channels, int64_t pixels, int64_t first, int64_t last, float scale,
    float zero, float low, float high, int shift, uint8_t *out, float *sums, int dtype) {
    if (dtype == FLOAT32)
        quantize_pixels(x, channels, pixels, first, last, scale, zero, low, high, shift, out, sums,
                        FLOAT32);
    else
        quantize_pixels(x, channels, pixels, first, last, scale, zero, low, high, shift, out, sums,
                        BFLOAT16);
}

/* (product - sums * shift) * scale + bias into rows `stride` apart; scale and sums per row, shift
 * and bias per column. */
API MULTI void mz_rescale(
    const float *product, int64_t rows, int64_t count, const float *scale, const float *sums,
    const float *shift, const float *bias, void *out, int64_t stride, int dtype) {
    for (int64_t row = 0; row < rows; row++) {
        const float *from = product + row * count;
        const float s = scale[row], total = sums[row];
        if (dtype == FLOAT32) {
            float *to = (float *)out + row * stride;
            for (int64_t i = 0; i < count; i++)
                to[i] = (from[i] - total * shift[i]) * s + bias[i];
        } else {
            uint16_t *to = (uint16_t *)out + row * stride;
            for (int64_t i = 0; i < count; i++)
                to[i] = narrow((from[i] - total * shift[i]) * s + bias[i]);
        }
    }
}
