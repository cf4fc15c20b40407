/* Convolutions of each channel by itself: no panels, but channels side by side.
 *
 * Weights are laid out as [taps][TILE_COLUMNS], less their zero points, in 16 bits; products of at most
 * 255 * 255 are added in 32.
 */

/* Columns `first` to `last` of a tile, which begins with row `start` of the weight. */
static TARGET void lay_depthwise(
    const Segment *rows, int64_t taps, int64_t start, int64_t first, int64_t last, int16_t *out,
    uint8_t *codes) {
    const int64_t width = row_bytes(taps, rows->bits), times = rows->bits == 1 && !rows->book ? 2 : 1;
    const int64_t middle = rows->bits == 1 ? 1 : (int64_t)1 << (rows->bits - 1);
    for (int64_t column = first; column < last; column++) {
        const int64_t row = start + column;
        unpack_row(rows->packed + row * width, taps, rows->bits, codes);
        const int64_t zero = rows->zero ? times * rows->zero[row * rows->zero_step] : middle;
        for (int64_t tap = 0; tap < taps; tap++)
            out[tap * TILE_COLUMNS + column] =
                rows->book ? rows->book[codes[tap]] : (int16_t)(times * codes[tap] - zero);
    }
}

/* One row of the output, by all of a tile; its shift is in the weights. */
static TARGET void multiply_depthwise(
    const Windows *w, const Tile *tile, const int16_t *weights, const Target *target, int64_t row) {
    const int64_t x = row % w->out_width, y = row / w->out_width % w->out_height;
    const int64_t image = row / w->out_width / w->out_height, count = tile->columns;
    const int32_t zero = w->zero[row / w->rows_per_scale];
    int32_t sums[TILE_COLUMNS];
    memset(sums, 0, (size_t)count * sizeof(int32_t));
    for (int64_t tap = 0; tap < w->kernel_h * w->kernel_w; tap++) {
        const int64_t at_y = y * w->stride_h - w->pad_top + tap / w->kernel_w * w->dilation_h;
        const int64_t at_x = x * w->stride_w - w->pad_left + tap % w->kernel_w * w->dilation_w;
        if (at_y < 0 || at_y >= w->height || at_x < 0 || at_x >= w->width) continue;
        const uint8_t *codes =
            w->codes + ((image * w->height + at_y) * w->width + at_x) * w->pixel_stride;
        const int16_t *each = weights + tap * TILE_COLUMNS;
        for (int64_t i = 0; i < count; i++) sums[i] += (codes[i] - zero) * each[i];
    }
    finish(w, tile, target, row, 0, count, sums);
}
