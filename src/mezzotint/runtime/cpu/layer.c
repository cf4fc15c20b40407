/* A packed layer in one call: quantize the input, lay weights out, multiply, scale and write. */
#include "layer.h"
#include "quantize.h"
#include "stages.h"

#include <math.h>
#include <stddef.h>

/* Bytes of panels that are laid out before they are multiplied: they should stay in a core's cache. */
enum { TILE_BYTES = 1 << 19 };
/* Values of an input that a thread quantizes at a time; and the most parts an image is cut into. */
enum { PART_VALUES = 1 << 14, MOST_PARTS = 256 };
/* Pixels that are transposed at a time. */
enum { TURNED_PIXELS = 64 };
/* Parts of a stage for each thread, so that one that is held up leaves its share to others. */
enum { PARTS = 4 };

SIZE_OF(Segment)
SIZE_OF(Layer)
SIZE_OF(Call)

/* All that the threads of one call share. */
typedef struct {
    const Call *call;
    const Layer *layer;
    const Unit *unit;
    _Atomic int64_t joined;
    Stage *stages;
    int64_t stage_count;
    uint8_t *codes;
    float *scale;        /* per image */
    int32_t *zero;
    _Atomic int32_t *spoilt; /* per image: whether it holds NaN */
    float *sums;         /* per pixel */
    float (*ranges)[2];  /* [images, parts] */
    int32_t *place;      /* per stored row, where it stands in the output */
    int8_t *panels;      /* of a tile */
    int32_t *totals;
    float *columns[3];   /* scale, shift and bias of a tile */
    uint8_t *own;        /* scratch of each thread */
    int64_t own_bytes, code_stride, pixels, parts, part_pixels, depth, group_rows;
} Run;

/* The tile that comes next: some rows of a segment, of one group of channels. */
typedef struct {
    Segment rows;        /* of the group */
    int64_t segment, group, panel, count, first; /* panel of the group, panels, stored row */
} Cursor;

static int64_t tile_panels(int64_t depth) {
    const int64_t fitting = TILE_BYTES / (PANEL * depth) / 4 * 4;
    return fitting < 8 ? 8 : fitting > TILE_PANELS ? TILE_PANELS : fitting;
}

/* Move on to the next tile; 0 where there is none. */
static int next_tile(const Run *run, Cursor *at) {
    const Layer *layer = run->layer;
    at->panel += at->count;
    at->first += at->count * PANEL;
    for (;;) {
        if (at->count && at->panel * PANEL < at->rows.rows) break;
        if (at->count) {
            at->first += at->rows.rows - at->panel * PANEL;
            at->panel = 0;
            if (++at->group == layer->groups) at->group = 0, at->segment++;
        }
        if (at->segment == layer->segment_count) return 0;
        const Segment *whole = layer->segments + at->segment;
        const int64_t skipped = at->group * run->group_rows;
        at->rows = *whole;
        if (layer->groups > 1) {
            const int64_t wide = whole->scale_dtype == FLOAT32 ? 4 : 2;
            const int64_t each = whole->form == TWO_LEVELS ? 2 : 1;
            at->rows.rows = run->group_rows;
            at->rows.packed += skipped * row_bytes(layer->channels * layer->kernel_h * layer->kernel_w, whole->bits);
            at->rows.scale = (const uint8_t *)whole->scale + skipped * whole->scale_step * wide * each;
            if (whole->zero) at->rows.zero += skipped * whole->zero_step;
        }
        break;
    }
    const int64_t panels = (at->rows.rows + PANEL - 1) / PANEL, most = tile_panels(run->depth);
    at->count = panels - at->panel < most ? panels - at->panel : most;
    return 1;
}

static Cursor no_tile(void) {
    Cursor cursor;
    memset(&cursor, 0, sizeof cursor);
    return cursor;
}

static int64_t min_of(int64_t one, int64_t two) {
    return one < two ? one : two;
}

/* One after another in scratch, each on a line of its own. */
static void *take(uint8_t **free, int64_t bytes) {
    uint8_t *taken = *free;
    *free = taken + round_up(bytes, 64);
    return taken;
}

/* Fill in a run; the bytes of scratch that it takes, itself included. */
static int64_t set_up(const Call *call, Run *run) {
    const Layer *layer = call->layer;
    const int64_t channels = layer->channels * layer->groups, pixels = call->height * call->width;
    uint8_t *start = call->scratch, *free = start;
    take(&free, sizeof(Run));
    memset(run, 0, sizeof *run);
    run->call = call;
    run->layer = layer;
    run->unit = units[layer->unit];
    run->pixels = pixels;
    run->depth = layer->channels * layer->kernel_h * layer->kernel_w;
    run->group_rows = layer->outputs / layer->groups;
    /* Not a multiple of 1024: all rows would fall on the same lines of the cache. */
    run->code_stride = channels < 64 ? channels : round_up(channels, 64);
    if (run->code_stride % 1024 == 0) run->code_stride += 64;
    /* Images are cut into parts; those of one pixel are put together instead. */
    run->parts = min_of((pixels * channels + PART_VALUES - 1) / PART_VALUES, MOST_PARTS);
    run->part_pixels = (pixels + run->parts - 1) / run->parts;
    if (call->planes) run->part_pixels = round_up(run->part_pixels, TURNED_PIXELS);
    run->parts = (pixels + run->part_pixels - 1) / run->part_pixels;
    Cursor tile = no_tile();
    int64_t tiles = 0, panel_count = 0;
    while (next_tile(run, &tile)) {
        tiles++;
        const int64_t bytes =
            tile.count * PANEL * round_up(run->depth, run->unit->together(tile.rows.width));
        if (tile.rows.packed && bytes > panel_count) panel_count = bytes;
    }
    run->stage_count = 2 + 2 * tiles;
    run->stages = take(&free, run->stage_count * (int64_t)sizeof(Stage));
    run->codes = take(&free, call->images * pixels * run->code_stride + 64);
    run->scale = take(&free, call->images * 4);
    run->zero = take(&free, call->images * 4);
    run->spoilt = take(&free, call->images * 4);
    run->sums = take(&free, call->images * pixels * 4);
    run->ranges = take(&free, call->images * run->parts * 8);
    run->place = layer->order ? take(&free, layer->outputs * 4) : NULL;
    run->panels = take(&free, panel_count);
    run->totals = take(&free, TILE_COLUMNS * 4);
    for (int i = 0; i < 3; i++) run->columns[i] = take(&free, TILE_COLUMNS * 4);
    const int64_t laying = lay_bytes(round_up(run->depth, 4)), multiplying = run->unit->scratch();
    run->own_bytes = round_up(laying > multiplying ? laying : multiplying, 64);
    run->own = take(&free, run->own_bytes * call->threads);
    return free - start;
}

static int is_rows(const Call *call) {
    return call->height * call->width == 1;
}

static const void *value_at(const void *x, int64_t index, int32_t dtype) {
    return (const uint8_t *)x + index * (dtype == FLOAT32 ? 4 : 2);
}

/* First stage: ranges of parts of images. Its last part is what belongs to no image. */
static int64_t measure_parts(const Run *run) {
    const int measured = run->layer->dynamic && !is_rows(run->call);
    return 1 + (measured ? run->call->images * run->parts : 0);
}

static void measure(const Run *run, int64_t part) {
    const Call *call = run->call;
    const Layer *layer = run->layer;
    if (part == measure_parts(run) - 1) {
        for (int64_t image = 0; image < call->images; image++) {
            run->scale[image] = call->scale;
            run->zero[image] = call->zero + layer->shift;
            atomic_store_explicit(run->spoilt + image, 0, memory_order_relaxed);
        }
        if (run->place)
            for (int64_t i = 0; i < layer->outputs; i++) run->place[layer->order[i]] = (int32_t)i;
        return;
    }
    const int64_t channels = layer->channels * layer->groups, values = run->pixels * channels;
    const int64_t image = part / run->parts, index = part % run->parts;
    const int64_t start = values * index / run->parts, end = values * (index + 1) / run->parts;
    mz_range(
        value_at(call->x, image * values + start, call->x_dtype), end - start, call->x_dtype,
        !layer->own_zeros, run->ranges[part]);
}

/* The scale of an image from the ranges of its parts, and its zero point. */
static float scale_of_image(const Run *run, int64_t image, int32_t *zero) {
    float low = 0, high = 0;
    for (int64_t part = image * run->parts; part < (image + 1) * run->parts; part++) {
        const float *found = run->ranges[part];
        low = found[0] < low ? found[0] : low;
        /* NaN stays. */
        high = high >= found[1] || high != high ? high : found[1];
    }
    if (run->layer->own_zeros) return scale_of_range(low, high, run->layer->high, zero);
    return scale_of_peak(high, run->layer->high);
}

/* Second stage: codes. Rows of their own scale are put together, images are cut into parts. */
static int64_t rows_at_once(const Run *run) {
    const int64_t channels = run->layer->channels * run->layer->groups;
    return PART_VALUES / channels < 1 ? 1 : PART_VALUES / channels;
}

static int64_t quantize_parts(const Run *run) {
    const int64_t images = run->call->images, rows = rows_at_once(run);
    return is_rows(run->call) ? (images + rows - 1) / rows : images * run->parts;
}

static Quantize quantize_work(const Run *run) {
    const Call *call = run->call;
    const Layer *layer = run->layer;
    Quantize work;
    memset(&work, 0, sizeof work);
    work.x = call->x;
    work.out = run->codes;
    work.sums = run->sums;
    work.count = layer->channels * layer->groups;
    work.stride = call->x_stride;
    work.out_stride = run->code_stride;
    work.dtype = call->x_dtype;
    work.range = (CodeRange){call->zero, layer->low, layer->high, layer->shift};
    return work;
}

static void quantize_rows(const Run *run, int64_t part) {
    Quantize work = quantize_work(run);
    const int64_t rows = rows_at_once(run), start = part * rows;
    const int64_t stop = min_of(start + rows, run->call->images);
    work.scale = run->scale;
    work.scale_step = 1;
    work.dynamic = run->layer->dynamic;
    work.zeros = run->layer->own_zeros ? run->zero : NULL;
    mz_quantize(&work, start, stop, 0);
    for (int64_t row = start; row < stop; row++)
        if (run->sums[row] != run->sums[row]) run->scale[row] = NAN;
}

static void quantize_image(const Run *run, int64_t part) {
    const Call *call = run->call;
    const int64_t image = part / run->parts, index = part % run->parts;
    const int64_t first = index * run->part_pixels;
    const int64_t last = min_of(first + run->part_pixels, run->pixels);
    const int64_t before = image * run->pixels;
    Quantize work = quantize_work(run);
    float scale = call->scale;
    if (run->layer->dynamic) {
        /* Every part finds the same. */
        scale = scale_of_image(run, image, &work.range.zero);
        if (index == 0) {
            run->scale[image] = scale;
            run->zero[image] = work.range.zero + work.range.shift;
        }
    }
    if (call->planes) {
        const QuantizePixels planes = {
            value_at(call->x, before * work.count, work.dtype),
            work.out + before * work.out_stride,
            work.sums + before,
            work.count,
            run->pixels,
            work.out_stride,
            work.dtype,
            scale,
            work.range,
        };
        mz_quantize_pixels(&planes, first, last, 0);
    } else {
        work.scale = &scale;
        mz_quantize(&work, before + first, before + last, 0);
    }
    for (int64_t pixel = before + first; pixel < before + last; pixel++)
        if (run->sums[pixel] != run->sums[pixel])
            atomic_store_explicit(run->spoilt + image, 1, memory_order_relaxed);
}

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
    const int64_t wanted = call->threads == 1 ? 1 : PARTS * call->threads / found.blocks;
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
    const int shifts = rows->zero || rows->form == TWO_LEVELS;
    const Windows windows = {
        run->codes + tile->group * layer->channels, run->code_stride, call->height, call->width,
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
    const int64_t block = part / cuts.cuts * BLOCK, left = part % cuts.cuts * cuts.panels * PANEL;
    const int64_t range[4] = {
        block, min_of(block + BLOCK, cuts.rows), left, min_of(left + cuts.panels * PANEL, columns)};
    run->unit->multiply(&windows, &ready, &target, range, scratch);
}

/* Everything, shared with whoever else runs this. */
static void take_part_in(void *given) {
    Run *run = given;
    const int64_t thread = atomic_fetch_add_explicit(&run->joined, 1, memory_order_relaxed);
    if (thread >= run->call->threads) return;
    uint8_t *own = run->own + thread * run->own_bytes;
    Stage *stage = run->stages;
    int64_t count = measure_parts(run);
    for (int64_t part; (part = take_part(stage, count)) >= 0; part_done(stage)) measure(run, part);
    wait_for(stage++, count);
    count = quantize_parts(run);
    for (int64_t part; (part = take_part(stage, count)) >= 0; part_done(stage))
        if (is_rows(run->call)) quantize_rows(run, part);
        else quantize_image(run, part);
    wait_for(stage++, count);
    Cursor tile = no_tile();
    while (next_tile(run, &tile)) {
        count = lay_parts(&tile);
        for (int64_t part; (part = take_part(stage, count)) >= 0; part_done(stage))
            lay_part(run, &tile, part, own);
        wait_for(stage++, count);
        const Cuts cuts = cuts_of(run, &tile);
        count = cuts.blocks * cuts.cuts;
        for (int64_t part; (part = take_part(stage, count)) >= 0; part_done(stage))
            multiply_part(run, &tile, part, own);
        wait_for(stage++, count);
    }
}

/* Bytes of scratch that a call takes. */
API int64_t mz_layer_bytes(const Call *call) {
    Run run;
    return set_up(call, &run);
}

/* Make a call ready for threads to take part in. */
API void mz_layer_begin(const Call *call) {
    Run *run = (Run *)(void *)call->scratch;
    set_up(call, run);
    memset((void *)run->stages, 0, (size_t)run->stage_count * sizeof(Stage));
}

/* Take part in a call that has begun; returns when it is done. */
API void mz_layer_part(const Call *call, int64_t start, int64_t stop, int64_t thread) {
    (void)start, (void)stop, (void)thread;
    take_part_in(call->scratch);
}

/* GOMP_parallel: calls a function on as many threads, or fewer, and returns when all have. */
typedef void (*Parallel)(void (*call)(void *), void *given, unsigned threads, unsigned flags);

/* Compute a layer's output on a team of threads; without `parallel` on this one. The whole team is
 * called even where fewer will do: GNU's OpenMP ends threads that a call leaves out. */
API void mz_layer(const Call *call, Parallel parallel, int64_t team) {
    mz_layer_begin(call);
    if (parallel && call->threads > 1) parallel(take_part_in, call->scratch, (unsigned)team, 0);
    else take_part_in(call->scratch);
}
