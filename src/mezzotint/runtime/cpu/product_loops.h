/* Products of codes by panels of weights, whatever multiplies; each unit's C file includes this.
 *
 * A unit defines its name, TARGET, ROWS and PANELS (how many rows and panels are multiplied at a time,
 * their sums in registers), SIGNED_CODES, the types of sums, weights and spread codes of one panel, and
 * functions on these: clear, load, spread, add_products and put.
 *
 * Sixteen outputs make a panel, in which the weights that are multiplied together lie side by side:
 * [depth / together][16][together].
 */
#include "panel_layout.h"

#include <stddef.h>

/* Codes that are multiplied before their sums are put down: four panels of them stay in the nearest
 * cache. */
enum { DEPTH = 512 };
/* A few bytes more than the depth, lest all rows fall on the same lines of the cache. */
enum { ROW_STRIDE = DEPTH + 64 };

/* Rows of codes, `stride` bytes apart, by steps of panels; their sums are added to, unless fresh. */
typedef struct {
    const uint8_t *rows;
    int64_t stride;
    const int8_t *panels;
    int64_t panel_stride;
    int64_t steps, run; /* a run of steps at most between two times that sums are put down */
    int32_t *sums;
    int fresh;
} Strip;

/* `count` rows by `panels`. */
INLINE TARGET void multiply_rows(
    const Strip *s, const uint8_t *rows, int32_t *to, const int count, const int panels,
    const int how) {
    const int64_t step_bytes = PANEL * (how == IN_16_BITS ? 2 : 4);
    const int64_t stride = s->stride, panel_stride = s->panel_stride;
    for (int64_t start = 0; start < s->steps; start += s->run) {
        const int64_t end = start + s->run < s->steps ? start + s->run : s->steps;
        Sums sums[ROWS][PANELS];
#pragma GCC unroll 6
        for (int r = 0; r < count; r++)
#pragma GCC unroll 4
            for (int p = 0; p < panels; p++) clear(&sums[r][p]);
        for (int64_t step = start; step < end; step++) {
            Weights weights[PANELS];
#pragma GCC unroll 4
            for (int p = 0; p < panels; p++)
                load(&weights[p], s->panels + p * panel_stride + step * step_bytes, how);
#pragma GCC unroll 6
            for (int r = 0; r < count; r++) {
                const Spread codes = spread(rows + r * stride + 4 * step);
#pragma GCC unroll 4
                for (int p = 0; p < panels; p++) add_products(&sums[r][p], codes, &weights[p], how);
            }
        }
#pragma GCC unroll 6
        for (int r = 0; r < count; r++)
#pragma GCC unroll 4
            for (int p = 0; p < panels; p++)
                put(to + r * TILE_COLUMNS + p * PANEL, &sums[r][p], s->fresh && start == 0, how);
    }
}

INLINE TARGET void multiply_strip(const Strip *s, int64_t count, const int panels, const int how) {
    const uint8_t *rows = s->rows;
    int32_t *to = s->sums;
    for (; count >= ROWS; count -= ROWS) {
        multiply_rows(s, rows, to, ROWS, panels, how);
        rows += ROWS * s->stride;
        to += ROWS * TILE_COLUMNS;
    }
    switch (count) {
    case 5: multiply_rows(s, rows, to, 5, panels, how); break;
    case 4: multiply_rows(s, rows, to, 4, panels, how); break;
    case 3: multiply_rows(s, rows, to, 3, panels, how); break;
    case 2: multiply_rows(s, rows, to, 2, panels, how); break;
    case 1: multiply_rows(s, rows, to, 1, panels, how); break;
    default: break;
    }
}

/* `count` rows by all of `panels`. */
INLINE TARGET void multiply_panels(Strip s, int64_t count, int64_t panels, const int how) {
    while (panels > 0) {
        const int64_t now = panels >= PANELS ? PANELS : panels >= 2 ? 2 : 1;
        if (now == PANELS) multiply_strip(&s, count, PANELS, how);
        else if (now == 2 && PANELS > 2) multiply_strip(&s, count, PANELS > 2 ? 2 : 1, how);
        else multiply_strip(&s, count, 1, how);
        s.panels += now * s.panel_stride;
        s.sums += now * PANEL;
        panels -= now;
    }
}

static TARGET void multiply_any(const Strip *strip, int64_t count, int64_t panels, int32_t width) {
    Strip s = *strip;
    s.run = s.steps;
#if defined(WIDENS_CODES)
    /* So many pairs of the greatest products stay below 2^15. */
    const int64_t pairs = 32767 / (2 * 255 * (width == 1 ? 1 : 1 << (width - 1)));
    if (width == 8) {
        multiply_panels(s, count, panels, IN_16_BITS);
        return;
    }
    if (pairs >= 8) {
        s.run = pairs;
        multiply_panels(s, count, panels, IN_MANY_PAIRS);
        return;
    }
#else
    (void)width;
#endif
    multiply_panels(s, count, panels, IN_STEPS);
}

static int64_t together_of(int32_t width) {
#if defined(WIDENS_CODES)
    return width == 8 ? 2 : 4;
#else
    (void)width;
    return 4;
#endif
}

/* Panels, and the sums of their integers: products with ones. */
static TARGET void lay(
    const Segment *rows, int64_t channels, int64_t taps, int64_t start, int64_t stop,
    int8_t *panels, int32_t *totals, uint8_t *scratch) {
    const int64_t together = together_of(rows->width), count = channels * taps;
    const int64_t depth = round_up(count, together);
    uint8_t ones[DEPTH];
    for (int64_t i = 0; i < DEPTH; i++) ones[i] = together == 4 || i % 2 == 0;
    for (int64_t panel = start; panel < stop; panel++) {
        int8_t *to = panels + (panel - start) * PANEL * depth;
        int32_t sums[TILE_COLUMNS] = {0};
        lay_panel(rows, channels, taps, panel, together, to, scratch);
        for (int64_t at = 0; at < depth; at += DEPTH / 4 * together) {
            const int64_t end = at + DEPTH / 4 * together < depth ? at + DEPTH / 4 * together : depth;
            const Strip strip = {
                ones, 0, to + at * PANEL, 0, (end - at) / together, 0, sums, at == 0};
            multiply_any(&strip, 1, 1, rows->width);
        }
        const int64_t left = rows->rows - panel * PANEL;
        memcpy(
            totals + (panel - start) * PANEL, sums,
            (size_t)(left < PANEL ? left : PANEL) * sizeof(int32_t));
    }
}

#include "windows.h"

/* scale * (sum - zero * total - shift * row's sum) + bias, of one row, `count` columns from `column`. */
static TARGET void finish(
    const Windows *w, const Tile *tile, const Target *target, int64_t row, int64_t column,
    int64_t count, const int32_t *sums) {
    const float others = tile->shift ? window_sum(w, row) : 0;
    const float s = w->scale[row / w->rows_per_scale];
    const float *scale = tile->scale + column;
    const int32_t *totals = tile->totals + column;
    const uint32_t zero =
        (uint32_t)w->zero[row / w->rows_per_scale] - (SIGNED_CODES ? (uint32_t)128 : 0);
    float values[TILE_COLUMNS];
    for (int64_t i = 0; i < count; i++)
        /* Without sign: what wraps on the way is right in the end. */
        values[i] = (float)(int32_t)((uint32_t)sums[i] - zero * (uint32_t)totals[i]) * scale[i];
    if (tile->shift) {
        const float *shift = tile->shift + column;
        for (int64_t i = 0; i < count; i++) values[i] -= others * shift[i];
    }
    for (int64_t i = 0; i < count; i++) values[i] *= s;
    if (tile->bias) {
        const float *bias = tile->bias + column;
        for (int64_t i = 0; i < count; i++) values[i] += bias[i];
    }
    float *floats = (float *)target->out + row * target->stride;
    uint16_t *halves = (uint16_t *)target->out + row * target->stride;
    if (target->place) {
        const int32_t *place = target->place + column;
        for (int64_t i = 0; i < count; i++)
            if (target->dtype == FLOAT32) floats[place[i]] = values[i];
            else halves[place[i]] = narrow(values[i]);
    } else if (target->dtype == FLOAT32) {
        memcpy(floats + target->first + column, values, (size_t)count * sizeof(float));
    } else {
        halves += target->first + column;
        for (int64_t i = 0; i < count; i++) halves[i] = narrow(values[i]);
    }
}

static int64_t scratch_bytes(void) {
    return (int64_t)sizeof(int32_t) * BLOCK * TILE_COLUMNS + BLOCK * ROW_STRIDE;
}

static TARGET void multiply(
    const Windows *w, const Tile *tile, const Target *target, const int64_t range[4],
    uint8_t *scratch) {
    const int64_t last = range[1], left = range[2], right = range[3];
    const int64_t together = together_of(tile->width), panels = (right - left + PANEL - 1) / PANEL;
    const int64_t slab = DEPTH / 4 * together, count = w->kernel_h * w->kernel_w * w->channels;
    /* Rows of windows of a pixel lie ready; what is read beyond their end meets weights of 0. */
    const int ready = together == 4 && !SIGNED_CODES && is_pointwise(w);
    int32_t *sums = (int32_t *)(void *)scratch;
    uint8_t *gathered = scratch + sizeof(int32_t) * BLOCK * TILE_COLUMNS;
    for (int64_t row = range[0]; row < last; row += BLOCK) {
        const int64_t row_end = row + BLOCK < last ? row + BLOCK : last;
        for (int64_t start = 0; start < count; start += slab) {
            const int64_t end = start + slab < count ? start + slab : count;
            if (!ready) gather_block(w, row, row_end, start, end, together, gathered);
            const Strip strip = {
                ready ? w->codes + row * w->pixel_stride + start : gathered,
                ready ? w->pixel_stride : ROW_STRIDE,
                tile->panels + left * tile->depth + start * PANEL,
                PANEL * tile->depth,
                (end - start + together - 1) / together,
                0,
                sums,
                start == 0,
            };
            multiply_any(&strip, row_end - row, panels, tile->width);
        }
        for (int64_t r = row; r < row_end; r++)
            finish(w, tile, target, r, left, right - left, sums + (r - row) * TILE_COLUMNS);
    }
}

#include "depthwise.h"

const Unit UNIT = {
    NAME, supported, together_of, scratch_bytes, lay, multiply, lay_depthwise, multiply_depthwise};
