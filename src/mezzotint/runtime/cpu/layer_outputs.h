/* The other stages of a layer's call, of each tile: weights laid out, and its outputs. */
#include "layer_run.h"

#include <math.h>

/* Third stage, of each tile: its panels; the last part is the numbers of its columns. */
static int64_t lay_parts(const Cursor *tile) {
    return 1 + (tile->rows.packed ? tile->count : 0);
}

static float number(const void *values, int64_t index, int32_t dtype) {
    return dtype == FLOAT32 ? ((const float *)values)[index] : widen(((const uint16_t *)values)[index]);
}

/* Scale and shift of the integers of a row: w = scale * integer - shift. */
static void step_of(const Segment *rows, int64_t row, float *scale, float *shift) {
    const int64_t index = row * rows->scale_step;
    if (rows->form == TWO_LEVELS) {
        /* Halves first: the distance of huge levels would overflow. */
        const float low = number(rows->scale, 2 * index, rows->scale_dtype) / 2;
        const float high = number(rows->scale, 2 * index + 1, rows->scale_dtype) / 2;
        *scale = high - low;
        *shift = -(high + low);
        return;
    }
    /* At one bit the codes are 1 and -1, which count in halves of the scale. */
    const float step = rows->bits == 1 && !rows->book ? 2 : 1;
    const float middle = rows->bits == 1 ? 0.5f : (float)(1 << (rows->bits - 1));
    *scale = number(rows->scale, index, rows->scale_dtype) / step;
    *shift = rows->zero ? *scale * (((float)rows->zero[row * rows->zero_step] - middle) * step) : 0;
}

static void find_columns(const Run *run, const Cursor *tile) {
    const Call *call = run->call;
    const int64_t first = tile->panel * PANEL;
    const int64_t count = min_of(tile->count * PANEL, tile->rows.rows - first);
    for (int64_t i = 0; i < count; i++) {
        step_of(&tile->rows, first + i, run->columns[0] + i, run->columns[1] + i);
        if (!call->bias) continue;
        const int64_t stored = tile->first + i, column = run->place ? run->place[stored] : stored;
        run->columns[2][i] = number(call->bias, column, call->bias_dtype);
    }
}

static void lay_part(const Run *run, const Cursor *tile, int64_t part, uint8_t *scratch) {
    const Layer *layer = run->layer;
    if (part == lay_parts(tile) - 1) {
        find_columns(run, tile);
        if (tile->first == 0)
            for (int64_t image = 0; image < run->call->images; image++)
                if (atomic_load_explicit(run->spoilt + image, memory_order_relaxed))
                    run->scale[image] = NAN;
        return;
    }
    if (run->depthwise) {
        const int64_t start = tile->panel * PANEL, first = part * PANEL;
        const int64_t last = min_of(first + PANEL, tile->rows.rows - start);
        run->unit->lay_depthwise(
            &tile->rows, run->depth, start, first, last, (int16_t *)(void *)run->panels, scratch);
        memset(run->totals + first, 0, (size_t)(last - first) * sizeof(int32_t));
        return;
    }
    const int64_t depth = round_up(run->depth, run->unit->together(tile->rows.width));
    const int64_t panel = tile->panel + part;
    run->unit->lay(
        &tile->rows, layer->channels, layer->kernel_h * layer->kernel_w, panel, panel + 1,
        run->panels + part * PANEL * depth, run->totals + part * PANEL, scratch);
}

/* Fourth stage, of each tile: blocks of rows by all of it, or by some of its panels. */
typedef struct {
    int64_t rows, blocks, panels, cuts; /* of the output, of them, in a cut, of the tile */
} Cuts;

static Cuts cuts_of(const Run *run, const Cursor *tile) {
    const Call *call = run->call;
    Cuts found;
    found.rows = call->images * call->out_height * call->out_width;
    found.blocks = (found.rows + BLOCK - 1) / BLOCK;
    const int64_t wanted = call->threads == 1 || run->depthwise ? 1 : PARTS * call->threads / found.blocks;
    const int64_t most = (tile->count + 3) / 4, cuts = wanted < 1 ? 1 : min_of(wanted, most);
    found.panels = round_up((tile->count + cuts - 1) / cuts, 4);
    found.cuts = (tile->count + found.panels - 1) / found.panels;
    return found;
}

static void multiply_part(const Run *run, const Cursor *tile, int64_t part, uint8_t *scratch) {
    const Call *call = run->call;
    const Layer *layer = run->layer;
    const Segment *rows = &tile->rows;
    const Cuts cuts = cuts_of(run, tile);
    const int64_t depth = round_up(run->depth, run->unit->together(rows->width));
    const int64_t first = tile->panel * PANEL;
    const int64_t columns = min_of(tile->count * PANEL, rows->rows - first);
    const int shifts = !run->depthwise && (rows->zero || rows->form == TWO_LEVELS);
    const Windows windows = {
        run->codes + (run->depthwise ? first : tile->group * layer->channels), run->code_stride, call->height, call->width,
        layer->channels, layer->kernel_h, layer->kernel_w, layer->stride_h, layer->stride_w,
        layer->pad_top, layer->pad_left, layer->dilation_h, layer->dilation_w, call->out_height,
        call->out_width, call->out_height * call->out_width, run->scale, run->zero,
        layer->groups > 1 ? NULL : run->sums,
    };
    const Tile ready = {
        rows->packed ? run->panels : rows->panels + first * depth,
        rows->packed ? run->totals : rows->totals + first,
        run->columns[0], shifts ? run->columns[1] : NULL, call->bias ? run->columns[2] : NULL,
        columns, depth, rows->width,
    };
    const Target target = {
        call->out, run->place ? run->place + tile->first : NULL, tile->first, layer->outputs,
        call->out_dtype,
    };
    if (run->depthwise) {
        for (int64_t row = part * BLOCK; row < min_of((part + 1) * BLOCK, cuts.rows); row++)
            run->unit->multiply_depthwise(
                &windows, &ready, (const int16_t *)(const void *)run->panels, &target, row);
        return;
    }
    const int64_t block = part / cuts.cuts * BLOCK, left = part % cuts.cuts * cuts.panels * PANEL;
    const int64_t range[4] = {
        block, min_of(block + BLOCK, cuts.rows), left, min_of(left + cuts.panels * PANEL, columns)};
    run->unit->multiply(&windows, &ready, &target, range, scratch);
}
