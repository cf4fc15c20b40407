/* The search of a book of levels for all rows of a weight; grid_passes.py declares the structures.
 *
 * Weights are counted by bins of half a step of their row's scale: from -127.5 steps on, those at the
 * ends hold all that lies beyond.
 */
#include "common.h"
#include "lanes.h"

#include <math.h>

enum { LEVELS = 255, BINS = 2 * LEVELS, PIECE = 512, BY = 32 };

/* The number of a row's weights in each bin, and their sum, in order. */
INLINE void histogram(
    const float *x, int64_t columns, float scale, double *counts, double *sums) {
    int32_t index[PIECE];
    for (int bin = 0; bin < BINS; bin++) counts[bin] = sums[bin] = 0;
    for (int64_t first = 0; first < columns; first += PIECE) {
        const int64_t left = columns - first, count = left < PIECE ? left : PIECE;
        for (int64_t i = 0; i < count; i++) {
            float bin = floorf(x[first + i] / scale * 2);
            bin = bin > (float)(-BINS / 2) ? bin : (float)(-BINS / 2);
            bin = bin < (float)(BINS / 2 - 1) ? bin : (float)(BINS / 2 - 1);
            index[i] = (int32_t)bin + BINS / 2;
        }
        for (int64_t i = 0; i < count; i++) {
            counts[index[i]] += 1;
            sums[index[i]] += (double)x[first + i];
        }
    }
}

typedef struct {
    const float *weights, *scale;        /* [rows, columns], [rows] */
    const double *of_counts, *of_sums;   /* [rows]: how much each row counts */
    double *counts, *sums;               /* [parts, BINS] */
    int64_t rows, columns, part_rows;
} BinTotals;
SIZE_OF(BinTotals)

/* Histograms of parts of the rows, row after row. */
API MULTI void mz_bin_totals(const BinTotals *w, int64_t start, int64_t stop, int64_t thread) {
    double counts[BINS], sums[BINS];
    (void)thread;
    for (int64_t part = start; part < stop; part++) {
        double *all = w->counts + part * BINS, *total = w->sums + part * BINS;
        const int64_t first = part * w->part_rows, left = w->rows - first;
        const int64_t end = first + (left < w->part_rows ? left : w->part_rows);
        for (int bin = 0; bin < BINS; bin++) all[bin] = total[bin] = 0;
        for (int64_t row = first; row < end; row++) {
            const double of_counts = w->of_counts[row], of_sums = w->of_sums[row];
            histogram(w->weights + row * w->columns, w->columns, w->scale[row], counts, sums);
            for (int bin = 0; bin < BINS; bin++) {
                all[bin] += counts[bin] * of_counts;
                total[bin] += sums[bin] * of_sums;
            }
        }
    }
}

typedef struct {
    const float *weights, *scale; /* [rows, columns], [rows] */
    const double *levels;         /* [BINS] */
    double *products, *squares;   /* [rows] */
    int64_t columns;
} LevelProducts;
SIZE_OF(LevelProducts)

INLINE double product(const double *x, const double *y) {
    double lanes[LANES];
    for (int i = 0; i < LANES; i++) lanes[i] = x[i] * y[i];
    for (int i = LANES; i < BINS; i++) lanes[i - LANES] += x[i] * y[i];
    return folded(lanes, LANES);
}

/* The sums of weight * level and of level * level of each row. */
API MULTI void mz_level_products(
    const LevelProducts *w, int64_t start, int64_t stop, int64_t thread) {
    double counts[BINS], sums[BINS], squares[BINS];
    (void)thread;
    for (int bin = 0; bin < BINS; bin++) squares[bin] = w->levels[bin] * w->levels[bin];
    for (int64_t row = start; row < stop; row++) {
        histogram(w->weights + row * w->columns, w->columns, w->scale[row], counts, sums);
        w->products[row] = product(sums, w->levels);
        w->squares[row] = product(counts, squares);
    }
}

typedef struct {
    const double *counts, *sums; /* [BINS + 1]: of all bins below each border */
    double *step;                /* [LEVELS, LEVELS]: to, from */
} LevelSteps;
SIZE_OF(LevelSteps)

/* Σ (u - level)² less Σ u² of the weights between two borders. */
static inline __attribute__((always_inline)) double error(
    double level, double count, double sum) {
    return level * (level * count - 2 * sum);
}

/* What it costs that two levels follow each other: the weights between them take the nearer one. */
API MULTI void mz_level_steps(const LevelSteps *w, int64_t start, int64_t stop, int64_t thread) {
    double counts[LEVELS], sums[LEVELS];
    (void)thread;
    for (int i = 0; i < LEVELS; i++) counts[i] = w->counts[2 * i + 1], sums[i] = w->sums[2 * i + 1];
    for (int64_t to = start; to < stop; to++) {
        const double *count = w->counts + to + 1, *sum = w->sums + to + 1;
        const double upper = (double)(to - LEVELS / 2), above = counts[to], total = sums[to];
        double *step = w->step + to * LEVELS;
        for (int i = 0; i < to; i++)
            step[i] = error((double)(i - LEVELS / 2), count[i] - counts[i], sum[i] - sums[i]) +
                      error(upper, above - count[i], total - sum[i]);
        for (int64_t i = to; i < LEVELS; i++) step[i] = INFINITY;
    }
}

typedef struct {
    const double *step; /* [places, places]: to, from; a path goes to higher places only */
    double *least, *next; /* [places]: costs of the first places, then of the last ones */
    int32_t *before;      /* [stages, places] */
    int64_t places, stages;
} Paths;
SIZE_OF(Paths)

/* The least of `count` sums, and the first place that has it; infinity at 0 where there is none. */
static inline __attribute__((always_inline)) double first_least(
    const double *x, const double *y, int64_t count, int32_t *place) {
    double lanes[BY], least = INFINITY;
    for (int i = 0; i < BY; i++) lanes[i] = INFINITY;
    int64_t first = 0;
    for (; first + BY <= count; first += BY)
        for (int i = 0; i < BY; i++) {
            const double sum = x[first + i] + y[first + i];
            lanes[i] = sum < lanes[i] ? sum : lanes[i];
        }
    for (int i = 0; i < BY; i++) least = lanes[i] < least ? lanes[i] : least;
    for (int64_t i = first; i < count; i++) least = x[i] + y[i] < least ? x[i] + y[i] : least;
    int64_t at = 0;
    for (; at + BY <= count; at += BY) {
        int here = 0;
        for (int i = 0; i < BY; i++) here |= x[at + i] + y[at + i] == least;
        if (here) break;
    }
    while (at < count && x[at] + y[at] != least) at++;
    *place = at < count ? (int32_t)at : 0;
    return least;
}

/* The cheapest way to each place, stage after stage: of equal ones, from the lowest place. */
API MULTI void mz_paths(const Paths *w, int64_t start, int64_t stop, int64_t thread) {
    const int64_t places = w->places;
    (void)start, (void)stop, (void)thread;
    for (int64_t stage = 0; stage < w->stages; stage++) {
        for (int64_t to = 0; to < places; to++)
            w->next[to] = first_least(
                w->least, w->step + to * places, to, w->before + stage * places + to);
        memcpy(w->least, w->next, (size_t)places * sizeof(double));
    }
}
