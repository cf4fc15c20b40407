/* A packed layer in one call: quantize the input, lay weights out, multiply, scale and write. */
#include "layer_inputs.h"
#include "layer_outputs.h"

#include <stddef.h>

SIZE_OF(Segment)
SIZE_OF(Layer)
SIZE_OF(Call)

static int64_t tile_panels(int64_t depth) {
    const int64_t fitting = TILE_BYTES / (PANEL * depth) / 4 * 4;
    return fitting < 8 ? 8 : fitting > TILE_PANELS ? TILE_PANELS : fitting;
}

/* The rows of a segment that belong to one group of channels. */
static Segment rows_of_group(const Run *run, const Segment *whole, int64_t group) {
    const Layer *layer = run->layer;
    const int64_t skipped = group * run->group_rows, taps = layer->kernel_h * layer->kernel_w;
    const int64_t number = whole->scale_dtype == FLOAT32 ? 4 : 2;
    const int64_t numbers = whole->form == TWO_LEVELS ? 2 : 1;
    Segment rows = *whole;
    if (run->groups == 1) return rows;
    rows.rows = run->group_rows;
    rows.packed += skipped * row_bytes(layer->channels * taps, whole->bits);
    rows.scale = (const uint8_t *)whole->scale + skipped * whole->scale_step * number * numbers;
    if (whole->zero) rows.zero += skipped * whole->zero_step;
    return rows;
}

/* Move on to the next tile; 0 where there is none. */
static int next_tile(const Run *run, Cursor *at) {
    at->panel += at->count;
    at->first += at->count * PANEL;
    if (at->panel * PANEL >= at->rows.rows && at->count) {
        /* The last panel of a group may not be full. */
        at->first += at->rows.rows - at->panel * PANEL;
        at->panel = 0;
        if (++at->group == run->groups) at->group = 0, at->segment++;
    }
    if (at->segment == run->layer->segment_count) return 0;
    if (at->panel == 0)
        at->rows = rows_of_group(run, run->layer->segments + at->segment, at->group);
    const int64_t panels = (at->rows.rows + PANEL - 1) / PANEL, most = tile_panels(run->depth);
    at->count = panels - at->panel < most ? panels - at->panel : most;
    return 1;
}

static Cursor no_tile(void) {
    Cursor cursor;
    memset(&cursor, 0, sizeof cursor);
    return cursor;
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
    run->depthwise = layer->groups > 1 && layer->channels == 1 && layer->outputs == layer->groups;
    run->groups = run->depthwise ? 1 : layer->groups;
    run->group_rows = layer->outputs / run->groups;
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
    if (run->depthwise) panel_count = run->depth * TILE_COLUMNS * (int64_t)sizeof(int16_t);
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
