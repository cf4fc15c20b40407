/* The first two stages of a layer's call: its input as codes. */
#include "layer_run.h"
#include "quantize.h"

#include <math.h>

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
