/* Inputs rounded to unsigned 8-bit codes; elementwise.c has the functions. */
#ifndef MEZZOTINT_QUANTIZE_H
#define MEZZOTINT_QUANTIZE_H

#include "common.h"

#include <float.h>

/* The codes that inputs are rounded to: from `low` to `high`, stored plus `shift`. */
typedef struct {
    int32_t zero, low, high, shift;
} CodeRange;

typedef struct {
    const void *x;     /* rows of `count`, `stride` values apart */
    float *scale;      /* a row each, `scale_step` apart; filled in where `dynamic` */
    int32_t *zeros;    /* a row each, filled in where dynamic scales have them; else NULL */
    uint8_t *out;      /* rows of `count`, `out_stride` bytes apart */
    float *sums;       /* a row each */
    int64_t count, stride, out_stride, scale_step;
    int32_t dynamic, dtype;
    CodeRange range;
} Quantize;

typedef struct {
    const void *x; /* [channels, pixels] */
    uint8_t *out;  /* pixels of `channels`, `out_stride` bytes apart */
    float *sums;   /* a pixel each */
    int64_t channels, pixels, out_stride;
    int32_t dtype;
    float scale;
    CodeRange range;
} QuantizePixels;

/* uint8 codes plus `shift`, and the sum of code - zero. Where dynamic, the scale of each row is found
 * first: its largest magnitude / high; or, with a zero point, its range / high. A row that holds
 * NaN has the sum NaN. */
API void mz_quantize(const Quantize *work, int64_t start, int64_t stop, int64_t thread);

/* Codes of the pixels of an image, whose channels lie apart, by a scale that is given. */
API void mz_quantize_pixels(const QuantizePixels *work, int64_t start, int64_t stop, int64_t thread);

/* The scale of codes up to `highest`, of a largest magnitude; and of a range that holds 0, with its
 * zero point. */
static inline float scale_of_peak(float peak, int32_t highest) {
    const float exact = peak / (float)highest;
    return exact < FLT_MIN ? FLT_MIN : exact;
}

static inline float scale_of_range(float low, float high, int32_t highest, int32_t *zero) {
    const float levels = (float)highest, exact = high / levels - low / levels;
    const float scale = exact < FLT_MIN ? FLT_MIN : exact;
    const float steps = __builtin_rintf(-low / scale);
    *zero = steps > 0 ? (steps < levels ? (int32_t)steps : highest) : 0;
    return scale;
}

/* Lowest and highest of `count` values, and 0; with `peak` instead their largest magnitude. One of the
 * two is NaN where a value is. */
API void mz_range(const void *x, int64_t count, int32_t dtype, int32_t peak, float found[2]);

#endif
