/* Layers of random shapes by every unit that this machine has, against sums in 64 bits.
 *
 * Every buffer is as long as it must be and no longer, so that a sanitizer sees what is read beyond. All
 * scales are 1 and all inputs whole, so that outputs are exact sums, but where these may pass 2^24.
 * Prints the names of the units; the first wrong output ends the process with status 1.
 */
#include "layer.h"

#include <stdio.h>
#include <stdlib.h>

API int64_t mz_layer_bytes(const Call *call);
API void mz_layer(const Call *call, void *parallel, int64_t team);
API const char *mz_unit(int64_t unit);

typedef struct {
    int64_t images, height, width, channels, groups, outputs, kernel_h, kernel_w, stride_h, stride_w;
    int64_t pad, dilation_h, dilation_w;
    int bits, book, zeros, own_zeros, dynamic, planes, bias, order, extreme;
} Case;

static uint64_t state = 88172645463325252u;

static int64_t pick(int64_t low, int64_t high) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return low + (int64_t)(state % (uint64_t)(high - low + 1));
}

static void *room(int64_t bytes) {
    void *found = malloc(bytes ? (size_t)bytes : 1);
    if (!found) exit(2);
    return found;
}

/* Codes of a row as packing.py packs them. */
static void pack_row(const uint8_t *codes, int64_t count, int bits, uint8_t *out) {
    const int64_t group = (count + 7) / 8;
    memset(out, 0, (size_t)(bits * group));
    for (int64_t i = 0; i < count; i++) {
        const int64_t slot = i / group, at = i % group;
        const int plane = (int)(slot * bits / 8), shift = (int)(slot * bits % 8);
        out[plane * group + at] |= (uint8_t)(codes[i] << shift);
        if (shift + bits > 8) out[(plane + 1) * group + at] |= (uint8_t)(codes[i] >> (8 - shift));
    }
}

static int64_t size_of_output(int64_t size, int64_t kernel, int64_t stride, int64_t pad, int64_t dilation) {
    return (size + 2 * pad - (kernel - 1) * dilation - 1) / stride + 1;
}

static int check(int unit, const Case *c) {
    const int64_t all = c->channels * c->groups, pixels = c->height * c->width;
    const int64_t taps = c->kernel_h * c->kernel_w, count = c->channels * taps;
    const int64_t out_h = size_of_output(c->height, c->kernel_h, c->stride_h, c->pad, c->dilation_h);
    const int64_t out_w = size_of_output(c->width, c->kernel_w, c->stride_w, c->pad, c->dilation_w);
    const int64_t width = row_bytes(count, c->bits), rows = c->images * out_h * out_w;
    const int64_t high = (1 << c->bits) - 1, levels = (int64_t)1 << c->bits;
    uint8_t *codes = room(c->outputs * count), *packed = room(c->outputs * width);
    uint8_t *zeros = room(c->outputs), *scratch;
    int8_t *book = room(levels);
    int32_t *order = room(c->outputs * 4);
    float *scale = room(c->outputs * 4), *bias = room(c->outputs * 4), *x = room(c->images * pixels * all * 4);
    float *out = room(rows * c->outputs * 4);
    for (int64_t i = 0; i < levels; i++) book[i] = (int8_t)pick(-128, 127);
    for (int64_t i = 0; i < c->outputs; i++) {
        scale[i] = 1, bias[i] = (float)pick(-99, 99), zeros[i] = (uint8_t)pick(0, 1) * (uint8_t)high;
        order[i] = (int32_t)i;
        for (int64_t k = 0; k < count; k++)
            codes[i * count + k] = (uint8_t)(c->extreme ? (i % 2 ? high : 0) : pick(0, high));
        pack_row(codes + i * count, count, c->bits, packed + i * width);
    }
    for (int64_t i = c->outputs - 1; i > 0; i--) {
        const int64_t j = pick(0, i);
        const int32_t kept = order[i];
        order[i] = order[j], order[j] = kept;
    }
    /* Signed codes, or, with zero points, unsigned ones whose zero is `zero`. */
    const int low_code = c->zeros ? 0 : -128, high_code = c->zeros ? 255 : 127;
    const int zero = c->zeros && !c->dynamic ? (int)pick(0, 1) * 255 : 0;
    for (int64_t i = 0; i < c->images * pixels * all; i++)
        x[i] = (float)(c->extreme ? (pick(0, 1) ? high_code : low_code) - zero
                                  : pick(low_code, high_code) - zero);
    if (c->dynamic) /* The largest magnitude of each row or image makes its scale 1. */
        for (int64_t image = 0; image < c->images; image++)
            for (int64_t i = 0; i < pixels * all; i++) {
                float *value = x + image * pixels * all + i;
                if (i == 0) *value = (float)high_code;
                else if (!c->own_zeros && *value < -127) *value = -127;
                else if (c->own_zeros && *value < 0) *value = 0;
            }
    const Segment segment = {
        .packed = packed, .book = c->book ? book : NULL, .scale = scale,
        .zero = c->own_zeros && !c->book ? zeros : NULL, .rows = c->outputs, .scale_step = 1,
        .zero_step = 1, .bits = c->bits, .width = c->book ? 8 : c->bits, .scale_dtype = FLOAT32};
    const Layer layer = {
        .segments = &segment, .order = c->order ? order : NULL, .segment_count = 1,
        .channels = c->channels, .groups = c->groups, .outputs = c->outputs, .kernel_h = c->kernel_h,
        .kernel_w = c->kernel_w, .stride_h = c->stride_h, .stride_w = c->stride_w, .pad_top = c->pad,
        .pad_left = c->pad, .dilation_h = c->dilation_h, .dilation_w = c->dilation_w, .unit = unit,
        .low = low_code, .high = high_code, .shift = -low_code, .dynamic = c->dynamic,
        .own_zeros = c->zeros && c->dynamic};
    Call call = {
        .layer = &layer, .x = x, .bias = c->bias ? bias : NULL, .out = out, .images = c->images,
        .height = c->height, .width = c->width, .out_height = out_h, .out_width = out_w, .x_stride = all,
        .planes = c->planes, .zero = zero, .scale = 1, .threads = 1};
    scratch = room(mz_layer_bytes(&call));
    call.scratch = scratch;
    mz_layer(&call, NULL, 1);
    int wrong = 0;
    /* Beyond 2^24 floats round what they scale and shift. */
    const double reach = (double)count * 256 * 256, allowed = reach < 1 << 24 ? 0 : reach / (1 << 22);
    const int64_t group_outputs = c->outputs / c->groups;
    for (int64_t row = 0; row < rows && !wrong; row++)
        for (int64_t o = 0; o < c->outputs && !wrong; o++) {
            const int64_t stored = c->order ? order[o] : o, group = stored / group_outputs;
            const int64_t image = row / out_w / out_h, y = row / out_w % out_h, at = row % out_w;
            int64_t twice = 0; /* at one bit integers count in halves */
            for (int64_t k = 0; k < count; k++) {
                const int64_t channel = group * c->channels + k / taps, tap = k % taps;
                const int64_t in_y = y * c->stride_h - c->pad + tap / c->kernel_w * c->dilation_h;
                const int64_t in_x = at * c->stride_w - c->pad + tap % c->kernel_w * c->dilation_w;
                if (in_y < 0 || in_y >= c->height || in_x < 0 || in_x >= c->width) continue;
                const int64_t pixel = in_y * c->width + in_x;
                const float value = c->planes ? x[(image * all + channel) * pixels + pixel]
                                              : x[(image * pixels + pixel) * all + channel];
                const int64_t code = codes[stored * count + k];
                int64_t weight = c->bits == 1 ? 2 * code - 1 : 2 * code - levels;
                if (c->book) weight = 2 * (int64_t)book[code];
                else if (segment.zero) weight = 2 * (code - zeros[stored]);
                twice += weight * (int64_t)value;
            }
            const double right = (double)(float)((double)twice / 2) + (c->bias ? (double)bias[o] : 0);
            const double off = (double)out[row * c->outputs + o] - (double)(float)right;
            if (off > allowed || -off > allowed) {
                printf(
                    "%s: row %d, output %d is %f, not %f: %d bits, book %d, zeros %d, dynamic %d, planes "
                    "%d, %dx%d of %dx%d channels, kernel %dx%d, %d outputs, extreme %d\n",
                    mz_unit(unit), (int)row, (int)o, (double)out[row * c->outputs + o], right, c->bits,
                    c->book, c->zeros, c->dynamic, c->planes, (int)c->height, (int)c->width,
                    (int)c->channels, (int)c->groups, (int)c->kernel_h, (int)c->kernel_w,
                    (int)c->outputs, c->extreme);
                wrong = 1;
            }
        }
    free(codes), free(packed), free(zeros), free(book), free(order), free(scale), free(bias), free(x);
    free(out), free(scratch);
    return wrong;
}

static Case any_case(int bits, int index) {
    static const int64_t channels[] = {1, 3, 4, 5, 31, 32, 33, 64, 96, 130, 516, 1056};
    Case c;
    memset(&c, 0, sizeof c);
    c.bits = bits;
    c.book = bits <= 6 && index % 5 == 4;
    c.extreme = index % 7 == 6;
    c.zeros = (int)pick(0, 1), c.dynamic = (int)pick(0, 1);
    c.own_zeros = (int)pick(0, 1), c.bias = (int)pick(0, 1), c.order = (int)pick(0, 1);
    if (c.dynamic) c.own_zeros = c.zeros;
    c.groups = c.kernel_h = c.kernel_w = c.stride_h = c.stride_w = c.dilation_h = c.dilation_w = 1;
    c.height = c.width = 1;
    c.channels = channels[pick(0, 11)];
    c.outputs = pick(1, 70), c.images = pick(1, 60);
    if (index % 2) {
        c.channels = channels[pick(0, 9)];
        c.images = pick(1, 2), c.height = pick(3, 9), c.width = pick(3, 9);
        c.kernel_h = pick(1, 3), c.kernel_w = pick(1, 3), c.pad = pick(0, 2);
        c.stride_h = pick(1, 2), c.stride_w = pick(1, 2);
        c.dilation_h = c.height > 4 ? pick(1, 2) : 1, c.dilation_w = c.width > 4 ? pick(1, 2) : 1;
        c.planes = (int)pick(0, 1);
        if (index % 4 == 1) {
            c.groups = pick(2, 4), c.outputs = c.groups * pick(1, 20), c.order = 0;
            c.channels = channels[pick(0, 5)];
            if (index % 8 == 1) c.channels = 1, c.outputs = c.groups = pick(2, 600); /* depthwise */
        }
    }
    return c;
}

int main(int count, char **given) {
    const int cases = count > 1 ? atoi(given[1]) : 20;
    for (int unit = 0; mz_unit(unit); unit++) {
        if (!*mz_unit(unit)) continue;
        for (int bits = 1; bits <= 8; bits++)
            for (int index = 0; index < cases; index++) {
                const Case c = any_case(bits, index);
                if (check(unit, &c)) return 1;
            }
        puts(mz_unit(unit));
    }
    return 0;
}
