/* Errors of clipped ranges, and the nearest of a few levels; grid_passes.py declares the structures. */
#include "common.h"
#include "lanes.h"

typedef struct {
    const float *weights;      /* [rows, columns] */
    const float *scale, *zero; /* [candidates, blocks], or [candidates] where `shared` */
    double *out;               /* [candidates, blocks]: a block is a group of a row */
    int64_t columns, groups, group_size, candidates, blocks;
    int32_t shared, highest, two_values;
} ClipErrors;
SIZE_OF(ClipErrors)

/* The squared distance of a weight, in steps of the scale, from its nearest code. Clamped first, so
 * that adding 1.5 * 2^23 rounds it, half to even; codes from `low` to `high` count from the zero point.
 */
INLINE double squared(
    float steps, float low, float high, const int two_values) {
    float code;
    if (two_values) {
        code = steps >= 0 ? 0.5f : -0.5f;
    } else {
        code = steps > low ? steps : low;
        code = code < high ? code : high;
        code = (code + 12582912.0f) - 12582912.0f;
    }
    const float error = code - steps;
    return (double)(error * error);
}

/* Adds by `lanes`, a constant; lanes beyond the weights of a short block add 0, which is exact. */
INLINE double total_of(
    const float *x, int64_t count, float scale, float low, float high, const int two_values,
    const int lanes) {
    double sums[LANES];
    int64_t start = count < lanes ? 0 : lanes;
    if (start == 0)
        for (int i = 0; i < lanes; i++) sums[i] = 0;
    else
        for (int i = 0; i < lanes; i++) sums[i] = squared(x[i] / scale, low, high, two_values);
    for (; start + lanes <= count; start += lanes)
        for (int i = 0; i < lanes; i++)
            sums[i] += squared(x[start + i] / scale, low, high, two_values);
    for (int64_t i = 0; i < count - start; i++)
        sums[i] += squared(x[start + i] / scale, low, high, two_values);
    return folded(sums, lanes);
}

INLINE void clip_errors(
    const ClipErrors *w, int64_t start, int64_t stop, const int two_values, const int lanes) {
    int64_t block = start / w->candidates, candidate = start % w->candidates;
    for (int64_t at = start; at < stop; at++) {
        const int64_t row = block / w->groups, first = block % w->groups * w->group_size;
        const int64_t left = w->columns - first, place = candidate * w->blocks + block;
        const int64_t parameter = w->shared ? candidate : place;
        const float zero = w->zero ? w->zero[parameter] : (float)((w->highest + 1) / 2);
        w->out[place] = total_of(
            w->weights + row * w->columns + first, left < w->group_size ? left : w->group_size,
            w->scale[parameter], -zero, (float)w->highest - zero, two_values, lanes);
        if (++candidate == w->candidates) {
            candidate = 0;
            block++;
        }
    }
}

INLINE void by_size(
    const ClipErrors *w, int64_t start, int64_t stop, const int two_values) {
    if (w->group_size <= 32) clip_errors(w, start, stop, two_values, 32);
    else if (w->group_size <= 64) clip_errors(w, start, stop, two_values, 64);
    else if (w->group_size <= 128) clip_errors(w, start, stop, two_values, 128);
    else clip_errors(w, start, stop, two_values, LANES);
}

/* Σ of squared errors, in steps of the scale; items go through the candidates of a block, then on. */
API MULTI void mz_clip_errors(const ClipErrors *w, int64_t start, int64_t stop, int64_t thread) {
    (void)thread;
    if (w->two_values) by_size(w, start, stop, 1);
    else by_size(w, start, stop, 0);
}

enum { PIECE = 512 };

typedef struct {
    const float *values, *scale; /* [rows, columns]; scales `scale_stride` apart, or NULL for 1 */
    const float *borders;        /* ascending, `stride` apart from row to row */
    uint8_t *out;                /* [rows, columns] */
    int64_t columns, borders_of, stride, scale_stride;
} NearestLevels;
SIZE_OF(NearestLevels)

/* The number of borders below each value; NaN lies above all. */
API MULTI void mz_nearest_levels(
    const NearestLevels *w, int64_t start, int64_t stop, int64_t thread) {
    float steps[PIECE];
    int32_t found[PIECE];
    (void)thread;
    for (int64_t row = start; row < stop; row++) {
        const float *x = w->values + row * w->columns, *borders = w->borders + row * w->stride;
        const float scale = w->scale ? w->scale[row * w->scale_stride] : 1;
        for (int64_t first = 0; first < w->columns; first += PIECE) {
            const int64_t left = w->columns - first, count = left < PIECE ? left : PIECE;
            for (int64_t i = 0; i < count; i++) steps[i] = x[first + i] / scale;
            memset(found, 0, sizeof found);
            for (int64_t border = 0; border < w->borders_of; border++) {
                const float value = borders[border];
                for (int64_t i = 0; i < count; i++) found[i] += !(value >= steps[i]);
            }
            uint8_t *out = w->out + row * w->columns + first;
            for (int64_t i = 0; i < count; i++) out[i] = (uint8_t)found[i];
        }
    }
}
