/* Unpack, dequantize, quantize and rescale, in one pass each, where torch takes several.
 *
 * Plain pointers, no headers but C's own; called through ctypes on ranges of rows, start to stop, so
 * that several threads may share a tensor. Every function has the same result as the torch code it
 * stands for, bit for bit. Each works on a structure, with the fields that native.py declares.
 */
#include "quantize.h"
#include "transpose.h"

#include <math.h>

typedef struct {
    const uint8_t *packed;
    const int8_t *book; /* 2^bits levels, or NULL */
    int8_t *out;
    int64_t count;
    int32_t bits;
} Unpack;
SIZE_OF(Unpack)

/* int8 [rows, count]: code - 2^(bits - 1), at one bit ±1; or the code's level in a book. */
API MULTI void mz_unpack(const Unpack *w, int64_t start, int64_t stop, int64_t thread) {
    const int64_t count = w->count, width = row_bytes(count, w->bits);
    const int bits = w->bits;
    const uint8_t half = (uint8_t)(1u << (bits - 1));
    (void)thread;
    for (int64_t row = start; row < stop; row++) {
        uint8_t *codes = (uint8_t *)w->out + row * count;
        unpack_row(w->packed + row * width, count, bits, codes);
        if (w->book)
            look_up_row(w->book, bits, codes, count);
        else if (bits == 1)
            for (int64_t i = 0; i < count; i++) codes[i] = (uint8_t)(2 * codes[i] - 1);
        else
            for (int64_t i = 0; i < count; i++) codes[i] = (uint8_t)(codes[i] - half);
    }
}

typedef struct {
    const uint8_t *packed;
    const float *scale, *zero; /* [rows, groups] */
    uint8_t *scratch;          /* [threads, count] */
    void *out;
    int64_t count, groups, group_size;
    int32_t bits, dtype;
} Dequantize;
SIZE_OF(Dequantize)

/* scale * (code - zero), float32 or bfloat16 [rows, count]; the last group may be shorter. */
API MULTI void mz_dequantize(const Dequantize *w, int64_t start, int64_t stop, int64_t thread) {
    const int64_t count = w->count, width = row_bytes(count, w->bits);
    uint8_t *codes = w->scratch + thread * count;
    for (int64_t row = start; row < stop; row++) {
        unpack_row(w->packed + row * width, count, w->bits, codes);
        for (int64_t group = 0; group < w->groups; group++) {
            const int64_t first = group * w->group_size;
            const int64_t end = group + 1 == w->groups ? count : first + w->group_size;
            const float s = w->scale[row * w->groups + group];
            const float z = w->zero[row * w->groups + group];
            if (w->dtype == FLOAT32) {
                float *to = (float *)w->out + row * count;
                for (int64_t i = first; i < end; i++) to[i] = ((float)codes[i] - z) * s;
            } else {
                uint16_t *to = (uint16_t *)w->out + row * count;
                for (int64_t i = first; i < end; i++) to[i] = narrow(((float)codes[i] - z) * s);
            }
        }
    }
}

typedef struct {
    const uint8_t *packed;
    const float *levels; /* 2^bits a row, `stride` apart */
    uint8_t *scratch;    /* [threads, count] */
    void *out;
    int64_t count, stride;
    int32_t bits, dtype;
} LookUp;
SIZE_OF(LookUp)

/* levels[code], float32 or bfloat16 [rows, count]. */
API MULTI void mz_look_up(const LookUp *w, int64_t start, int64_t stop, int64_t thread) {
    const int64_t count = w->count, width = row_bytes(count, w->bits);
    uint8_t *codes = w->scratch + thread * count;
    for (int64_t row = start; row < stop; row++) {
        const float *table = w->levels + row * w->stride;
        unpack_row(w->packed + row * width, count, w->bits, codes);
        if (w->dtype == FLOAT32) {
            float *to = (float *)w->out + row * count;
            for (int64_t i = 0; i < count; i++) to[i] = table[codes[i]];
        } else {
            uint16_t *to = (uint16_t *)w->out + row * count;
            for (int64_t i = 0; i < count; i++) to[i] = narrow(table[codes[i]]);
        }
    }
}

INLINE float at(const void *x, int64_t i, int dtype) {
    return dtype == FLOAT32 ? ((const float *)x)[i] : widen(((const uint16_t *)x)[i]);
}

INLINE const void *row_of(
    const void *x, int64_t row, int64_t stride, int dtype) {
    return (const char *)x + row * stride * (dtype == FLOAT32 ? 4 : 2);
}

/* The largest magnitude of each row; NaN where the row holds one. */
INLINE float peak_of(
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

typedef struct {
    const void *x; /* rows of `count`, `stride` values apart */
    float *out;
    int64_t count, stride;
    int32_t dtype;
} Peaks;
SIZE_OF(Peaks)

INLINE void peaks(
    const Peaks *w, int64_t start, int64_t stop, int dtype) {
    for (int64_t row = start; row < stop; row++)
        w->out[row] = peak_of(row_of(w->x, row, w->stride, dtype), w->count, dtype);
}

API MULTI void mz_peaks(const Peaks *w, int64_t start, int64_t stop, int64_t thread) {
    (void)thread;
    if (w->dtype == FLOAT32) peaks(w, start, stop, FLOAT32);
    else peaks(w, start, stop, BFLOAT16);
}

/* One code; NaN becomes the lowest. */
INLINE float code_of(float quotient, const CodeRange *range) {
    const float code = rintf(quotient) + (float)range->zero;
    const float least = code > (float)range->low ? code : (float)range->low;
    return least < (float)range->high ? least : (float)range->high;
}

SIZE_OF(Quantize)
SIZE_OF(QuantizePixels)

/* Bits of a float as integers of the same order, NaN beyond all others; its own inverse. */
INLINE int32_t ordered(int32_t bits) {
    return bits ^ (bits >> 31 & 0x7fffffff);
}

/* Lowest and highest value, and 0; one of them is NaN where a value is. */
INLINE void range_of(const void *x, int64_t count, int dtype, float found[2]) {
    int32_t low = 0, high = 0;
    for (int64_t i = 0; i < count; i++) {
        const float value = at(x, i, dtype);
        int32_t bits;
        memcpy(&bits, &value, 4);
        bits = ordered(bits);
        low = bits < low ? bits : low;
        high = bits > high ? bits : high;
    }
    low = ordered(low);
    high = ordered(high);
    memcpy(found, &low, 4);
    memcpy(found + 1, &high, 4);
}

API MULTI void mz_range(const void *x, int64_t count, int32_t dtype, int32_t peak, float found[2]) {
    if (peak) {
        found[0] = 0;
        found[1] = dtype == FLOAT32 ? peak_of(x, count, FLOAT32) : peak_of(x, count, BFLOAT16);
    } else if (dtype == FLOAT32) {
        range_of(x, count, FLOAT32, found);
    } else {
        range_of(x, count, BFLOAT16, found);
    }
}

INLINE void quantize(
    const Quantize *w, int64_t start, int64_t stop, int dtype) {
    CodeRange range = w->range;
    const int64_t count = w->count;
    for (int64_t row = start; row < stop; row++) {
        const void *from = row_of(w->x, row, w->stride, dtype);
        uint8_t *to = w->out + row * w->out_stride;
        float *scale = w->scale + row * w->scale_step;
        if (w->zeros) {
            float found[2];
            range_of(from, count, dtype, found);
            *scale = scale_of_range(found[0], found[1], range.high, &range.zero);
            w->zeros[row] = range.zero;
        } else if (w->dynamic) {
            *scale = scale_of_peak(peak_of(from, count, dtype), range.high);
        }
        const float s = *scale;
        int64_t total = 0;
        int32_t bad = 0;
        for (int64_t first = 0; first < count; first += 4096) {
            const int64_t end = first + 4096 < count ? first + 4096 : count;
            int32_t sum = 0;
            for (int64_t i = first; i < end; i++) {
                const float quotient = at(from, i, dtype) / s;
                const int32_t code = (int32_t)code_of(quotient, &range);
                bad |= quotient != quotient;
                sum += code;
                to[i] = (uint8_t)(code + range.shift);
            }
            total += sum;
        }
        w->sums[row] = bad ? NAN : (float)(total - (int64_t)range.zero * count);
    }
}

API MULTI void mz_quantize(const Quantize *w, int64_t start, int64_t stop, int64_t thread) {
    (void)thread;
    if (w->dtype == FLOAT32) quantize(w, start, stop, FLOAT32);
    else quantize(w, start, stop, BFLOAT16);
}

INLINE void quantize_pixels(
    const QuantizePixels *w, int64_t start, int64_t stop, int dtype) {
    const CodeRange range = w->range;
    const int64_t channels = w->channels;
    const float scale = w->scale;
    uint8_t tile[TILE * TILE];
    for (int64_t p = start; p < stop; p += TILE) {
        const int64_t columns = stop - p < TILE ? stop - p : TILE;
        int32_t sum[TILE] = {0}, bad[TILE] = {0};
        for (int64_t c = 0; c < channels; c += TILE) {
            const int64_t rows = channels - c < TILE ? channels - c : TILE;
            for (int64_t j = 0; j < rows; j++)
                for (int64_t i = 0; i < columns; i++) {
                    const float quotient = at(w->x, (c + j) * w->pixels + p + i, dtype) / scale;
                    const int32_t code = (int32_t)code_of(quotient, &range);
                    bad[i] |= quotient != quotient;
                    sum[i] += code;
                    tile[j * TILE + i] = (uint8_t)(code + range.shift);
                }
            transpose_tile(tile, rows, columns, w->out + p * w->out_stride + c, w->out_stride);
        }
        for (int64_t i = 0; i < columns; i++)
            w->sums[p + i] = bad[i] ? NAN : (float)(sum[i] - (int64_t)range.zero * channels);
    }
}

API MULTI void mz_quantize_pixels(
    const QuantizePixels *w, int64_t start, int64_t stop, int64_t thread) {
    (void)thread;
    if (w->dtype == FLOAT32) quantize_pixels(w, start, stop, FLOAT32);
    else quantize_pixels(w, start, stop, BFLOAT16);
}

typedef struct {
    const float *product;      /* [rows, count] */
    const float *scale, *sums; /* a row each */
    const float *shift, *bias; /* a column each */
    void *out;                 /* rows `stride` values apart */
    int64_t count, stride;
    int32_t dtype;
} Rescale;
SIZE_OF(Rescale)

/* (product - sums * shift) * scale + bias */
API MULTI void mz_rescale(const Rescale *w, int64_t start, int64_t stop, int64_t thread) {
    const float *shift = w->shift, *bias = w->bias;
    (void)thread;
    for (int64_t row = start; row < stop; row++) {
        const float *from = w->product + row * w->count;
        const float s = w->scale[row], total = w->sums[row];
        if (w->dtype == FLOAT32) {
            float *to = (float *)w->out + row * w->stride;
            for (int64_t i = 0; i < w->count; i++)
                to[i] = (from[i] - total * shift[i]) * s + bias[i];
        } else {
            uint16_t *to = (uint16_t *)w->out + row * w->stride;
            for (int64_t i = 0; i < w->count; i++)
                to[i] = narrow((from[i] - total * shift[i]) * s + bias[i]);
        }
    }
}
