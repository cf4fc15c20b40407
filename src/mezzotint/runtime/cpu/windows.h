/* The codes that lie in the window of a row of the output. */

/* The codes in the window of one row of the output, from `start` to `end` of [taps, channels]. */
static TARGET void gather(const Windows *w, int64_t row, int64_t start, int64_t end, uint8_t *to) {
    const int64_t x = row % w->out_width, y = row / w->out_width % w->out_height;
    const int64_t image = row / w->out_width / w->out_height, channels = w->channels;
    const int64_t top = y * w->stride_h - w->pad_top, left = x * w->stride_w - w->pad_left;
    int64_t tap = start / channels, channel = start % channels;
    int64_t tap_y = tap / w->kernel_w, tap_x = tap % w->kernel_w;
    while (start < end) {
        const int64_t rest = channels - channel;
        const int64_t length = rest < end - start ? rest : end - start;
        const int64_t at_y = top + tap_y * w->dilation_h, at_x = left + tap_x * w->dilation_w;
        if (at_y >= 0 && at_y < w->height && at_x >= 0 && at_x < w->width) {
            const int64_t pixel = (image * w->height + at_y) * w->width + at_x;
            memcpy(to, w->codes + pixel * w->pixel_stride + channel, (size_t)length);
        } else {
            memset(to, w->zero[row / w->rows_per_scale], (size_t)length);
        }
        to += length;
        start += length;
        channel = 0;
        if (++tap_x == w->kernel_w) tap_x = 0, tap_y++;
    }
}

/* Rows `first` to `last`, from `start` to `end`, as the instructions want them. */
static TARGET void gather_block(
    const Windows *w, int64_t first, int64_t last, int64_t start, int64_t end, int64_t together,
    uint8_t *rows) {
    const int64_t length = end - start, padded = round_up(length, together);
    uint8_t bytes[DEPTH];
    for (int64_t row = first; row < last; row++) {
        uint8_t *to = rows + (row - first) * ROW_STRIDE;
        uint8_t *codes = together == 2 ? bytes : to;
        gather(w, row, start, end, codes);
        memset(codes + length, 0, (size_t)(padded - length));
        if (SIGNED_CODES)
            for (int64_t i = 0; i < length; i++) codes[i] ^= 0x80;
        if (together == 2)
            for (int64_t i = 0; i < padded; i++) {
                const int16_t wide = codes[i];
                memcpy(to + 2 * i, &wide, sizeof wide);
            }
    }
}

/* Whether the window of each row of the output is the pixel of that number. */
static inline int is_pointwise(const Windows *w) {
    return w->kernel_h * w->kernel_w == 1 && w->stride_h * w->stride_w == 1 &&
           w->pad_top == 0 && w->pad_left == 0 && w->out_height == w->height &&
           w->out_width == w->width;
}

/* The sum of a pixel's codes less their zeros. */
static TARGET float pixel_sum(const Windows *w, int64_t pixel, int32_t zero) {
    if (w->sums) return w->sums[pixel];
    const uint8_t *codes = w->codes + pixel * w->pixel_stride;
    int64_t sum = 0;
    for (int64_t i = 0; i < w->channels; i++) sum += codes[i];
    return (float)(sum - w->channels * zero);
}

/* The same of the window of one row. */
static TARGET float window_sum(const Windows *w, int64_t row) {
    const int32_t zero = w->zero[row / w->rows_per_scale];
    if (is_pointwise(w)) return pixel_sum(w, row, zero);
    const int64_t x = row % w->out_width, y = row / w->out_width % w->out_height;
    const int64_t image = row / w->out_width / w->out_height;
    double sum = 0;
    for (int64_t tap = 0; tap < w->kernel_h * w->kernel_w; tap++) {
        const int64_t at_y = y * w->stride_h - w->pad_top + tap / w->kernel_w * w->dilation_h;
        const int64_t at_x = x * w->stride_w - w->pad_left + tap % w->kernel_w * w->dilation_w;
        if (at_y >= 0 && at_y < w->height && at_x >= 0 && at_x < w->width)
            sum += pixel_sum(w, (image * w->height + at_y) * w->width + at_x, zero);
    }
    return (float)sum;
}
