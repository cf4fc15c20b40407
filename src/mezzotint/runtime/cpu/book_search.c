/* The search of a book of levels for all rows of a weight; grid_passes.py declares the structures.
 *
 * Weights are counted by bins of half a step of their row's scale: from -127.5 steps on, those at the
 * ends hold all that lies beyond.
 */
#include "common.h"
#include "lanes.h"

#include <math.h>

enum { BINS = 510, PIECE = 512, BY = 16 };

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
    const double *step; /* [places, places]: to, from; a path goes to higher places only */
    double *least, *next; /* [places]: costs of the first places, then of the last ones */
    int32_t *before;      /* [stages, places] */
    int64_t places, stages;
} Paths;
SIZE_OF(Paths)

/* The cheapest way to each place, stage after stage: of equal ones, from the lowest place. */
API MULTI void mz_paths(const Paths *w, int64_t start, int64_t stop, int64_t thread) {
    const int64_t places = w->places;
    (void)start, (void)stop, (void)thread;
    for (int64_t stage = 0; stage < w->stages; stage++) {
        for (int64_t to = 0; to < places; to++) {
            const double *step = w->step + to * places;
            double cost[BY];
            int64_t from[BY];
            for (int i = 0; i < BY; i++) cost[i] = INFINITY, from[i] = 0;
            int64_t first = 0;
            for (; first + BY <= to; first += BY)
                for (int i = 0; i < BY; i++) {
                    const double here = w->least[first + i] + step[first + i];
                    from[i] = here < cost[i] ? first + i : from[i];
                    cost[i] = here < cost[i] ? here : cost[i];
                }
            for (int64_t i = 0; i < to - first; i++) {
                const double here = w->least[first + i] + step[first + i];
                from[i] = here < cost[i] ? first + i : from[i];
                cost[i] = here < cost[i] ? here : cost[i];
            }
            for (int i = 1; i < BY; i++)
                if (cost[i] < cost[0] || (cost[i] == cost[0] && from[i] < from[0]))
                    cost[0] = cost[i], from[0] = from[i];
            w->next[to] = cost[0];
            w->before[stage * places + to] = (int32_t)from[0];
        }
        memcpy(w->least, w->next, (size_t)places * sizeof(double));
    }
}
