/* Exact products of 8-bit codes by the weights of a layer, for processors with AVX2.
 *
 * These add products of two 8-bit integers in pairs, in 16 bits. Up to seven bits of weight that
 * is exact; up to four, so many pairs fit that they are added in 16 bits, too, and seldom widened.
 * Weights of eight bits would saturate: they and the codes are multiplied in 16 bits instead, two
 * products to a sum of 32.
 *
 * Sixteen outputs make a panel, in which the weights that are multiplied together lie side by side:
 * [depth / together][16][together]. Up to six rows are multiplied by a panel at a time, their sums
 * in registers.
 */
#include "common.h"

#include <stddef.h>

/* GCC keeps vectors on a stack that 64-bit Windows does not align for them. */
#if defined(__x86_64__) && defined(__GNUC__) && !(defined(_WIN32) && !defined(__clang__))
#define HAS_PRODUCTS 1
#include <immintrin.h>
#else
#define HAS_PRODUCTS 0
#endif

enum { PANEL = 16, ROWS = 6, BLOCK = 8 * ROWS, DEPTH = 1024, COLUMNS = 32 * PANEL };
/* A few bytes more than the depth, lest all rows fall on the same lines of the cache. */
enum { ROW_STRIDE = DEPTH + 64 };
/* How weights are laid out and multiplied. */
enum { PAIRS = 2, QUADS = 4 };

/* The product that a call computes; native.py has the same fields. */
typedef struct {
    const uint8_t *codes;    /* [images, height, width, channels] */
    const int8_t *panels;    /* as mz_panels lays them out */
    const int32_t *totals;   /* per output: the sum of its weights */
    const float *row_scale;  /* one for `rows_per_scale` rows of the output */
    const float *row_sum;    /* per row; NULL for zeros */
    const int32_t *row_zero; /* the code of 0, one for as many rows as a scale */
    const float *scale;      /* per output */
    const float *shift;      /* per output; NULL for zeros */
    const float *bias;       /* likewise */
    void *out;
    uint8_t *scratch;        /* per thread mz_products() bytes */
    int64_t height, width, channels;
    int64_t kernel_h, kernel_w;
    int64_t stride_h, stride_w;
    int64_t pad_top, pad_left;
    int64_t dilation_h, dilation_w;
    int64_t out_height, out_width;
    int64_t rows_per_scale;
    int64_t rows, outputs;
    int64_t out_stride; /* values from one row of the output to the next */
    int32_t bits;    /* of the weights */
    int32_t dtype;   /* of the output */
    int32_t by_rows; /* whether rows are shared among threads; else panels are */
} Product;
SIZE_OF(Product)

static inline int64_t round_up(int64_t count, int64_t step) {
    return (count + step - 1) / step * step;
}

/* The codes of one row in the order of a panel's depth, [taps, channels], less what is taken from
 * all of them. */
static inline __attribute__((always_inline)) void order_row(
    const uint8_t *codes, int64_t channels, int64_t taps, uint8_t times, uint8_t less,
    uint8_t *out) {
    for (int64_t tap = 0; tap < taps; tap++)
        for (int64_t c = 0; c < channels; c++)
            out[tap * channels + c] = (uint8_t)(codes[c * taps + tap] * times - less);
}

/* `size` weights at a time of sixteen rows of `depth`, side by side. */
static inline __attribute__((always_inline)) void interleave(
    const uint8_t *rows, int64_t depth, int8_t *out, const int64_t size) {
    /* In runs of a few lines, so that what is written stays near until its line is full. */
    for (int64_t start = 0; start < depth; start += 256) {
        const int64_t end = start + 256 < depth ? start + 256 : depth;
        for (int64_t o = 0; o < PANEL; o++)
            for (int64_t i = start; i < end; i += size)
                memcpy(out + i * PANEL + o * size, rows + o * depth + i, (size_t)size);
    }
}

/* A weight to be laid out; native.py has the same fields. */
typedef struct {
    const uint8_t *packed; /* [rows, channels, taps] */
    const int8_t *book;    /* 2^bits levels, or NULL */
    uint8_t *scratch;      /* per thread PANEL + 1 rows of depth, rounded up */
    int8_t *out;           /* panels, whose depth is [taps, channels] */
    int32_t *totals;       /* per row: the sum of its weights */
    int64_t rows, channels, taps;
    int32_t bits, together;
} Panels;
SIZE_OF(Panels)

/* Panels start to stop, and the sums of their rows. */
API MULTI void mz_panels(const Panels *w, int64_t start, int64_t stop, int64_t thread) {
    const int bits = w->bits;
    const int64_t channels = w->channels, taps = w->taps, count = channels * taps;
    const int64_t depth = round_up(count, w->together), width = row_bytes(count, bits);
    const uint8_t times = bits == 1 && !w->book ? 2 : 1;
    const uint8_t less = (uint8_t)(w->book ? 0 : bits == 1 ? 1 : 1u << (bits - 1));
    uint8_t *codes = w->scratch + thread * (PANEL + 1) * depth, *ordered = codes + depth;
    for (int64_t panel = start; panel < stop; panel++) {
        int8_t *to = w->out + panel * PANEL * depth;
        const int64_t left = w->rows - panel * PANEL, valid = left < PANEL ? left : PANEL;
        for (int64_t o = 0; o < PANEL; o++) {
            uint8_t *row = ordered + o * depth;
            memset(row + (o < valid ? count : 0), 0, (size_t)(depth - (o < valid ? count : 0)));
            if (o >= valid) continue;
            unpack_row(w->packed + (panel * PANEL + o) * width, count, bits, codes);
            if (w->book) look_up_row(w->book, bits, codes, count);
            if (taps == 1) order_row(codes, count, 1, times, less, row);
            else if (taps == 9) order_row(codes, channels, 9, times, less, row);
            else order_row(codes, channels, taps, times, less, row);
            int32_t total = 0;
            for (int64_t i = 0; i < count; i++) total += (int8_t)row[i];
            w->totals[panel * PANEL + o] = total;
        }
        if (w->together == QUADS) interleave(ordered, depth, to, QUADS);
        else interleave(ordered, depth, to, PAIRS);
    }
}

/* Bytes of scratch that a thread needs to multiply; 0 where this processor cannot. */
API int64_t mz_products(void) {
#if HAS_PRODUCTS
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2"))
        return (int64_t)sizeof(int32_t) * BLOCK * COLUMNS + 2 * BLOCK * ROW_STRIDE;
#endif
    return 0;
}

#if HAS_PRODUCTS
#define AVX2 __attribute__((target("avx2")))
#define INLINE static inline __attribute__((always_inline))

/* Which instructions multiply. */
enum { IN_16_BITS, IN_PAIRS, IN_MANY_PAIRS };

/* Keeps the compiler from fetching all rows before it multiplies any, and spilling the sums. */
#define IN_ORDER(one, two) __asm__ volatile("" : "+x"(one), "+x"(two))

INLINE AVX2 void store(__m256i *to, __m256i left, __m256i right, int fresh) {
    if (!fresh) {
        left = _mm256_add_epi32(left, _mm256_loadu_si256(to));
        right = _mm256_add_epi32(right, _mm256_loadu_si256(to + 1));
    }
    _mm256_storeu_si256(to, left);
    _mm256_storeu_si256(to + 1, right);
}

INLINE AVX2 __m256i spread(const void *from) {
    int32_t bits;
    memcpy(&bits, from, 4);
    return _mm256_set1_epi32(bits);
}

/* `count` rows by `steps` of a panel: 16 sums each, put into or added to `sums`. */
INLINE AVX2 void multiply_rows(
    const uint8_t *rows, const int8_t *panel, int64_t steps, int64_t widen, int32_t *sums,
    int fresh, const int count, const int how) {
    const __m256i ones = _mm256_set1_epi16(1);
    const int64_t size = how == IN_16_BITS ? 2 : 1, run = how == IN_MANY_PAIRS ? widen : steps;
    for (int64_t start = 0; start < steps; start += run) {
        const int64_t end = start + run < steps ? start + run : steps;
        __m256i sum[ROWS][2];
#pragma GCC unroll 6
        for (int r = 0; r < count; r++) sum[r][0] = sum[r][1] = _mm256_setzero_si256();
        for (int64_t step = start; step < end; step++) {
            __m256i left, right;
            if (how == IN_16_BITS) {
                const __m128i *from = (const __m128i *)(panel + step * PANEL * PAIRS);
                left = _mm256_cvtepi8_epi16(_mm_loadu_si128(from));
                right = _mm256_cvtepi8_epi16(_mm_loadu_si128(from + 1));
            } else {
                const __m256i *from = (const __m256i *)(panel + step * PANEL * QUADS);
                left = _mm256_loadu_si256(from);
                right = _mm256_loadu_si256(from + 1);
            }
#pragma GCC unroll 6
            for (int r = 0; r < count; r++) {
                const __m256i row = spread(rows + r * ROW_STRIDE * size + 4 * step);
                if (how == IN_16_BITS) {
                    sum[r][0] = _mm256_add_epi32(sum[r][0], _mm256_madd_epi16(row, left));
                    sum[r][1] = _mm256_add_epi32(sum[r][1], _mm256_madd_epi16(row, right));
                } else {
                    const __m256i one = _mm256_maddubs_epi16(row, left);
                    const __m256i two = _mm256_maddubs_epi16(row, right);
                    if (how == IN_PAIRS) {
                        sum[r][0] = _mm256_add_epi32(sum[r][0], _mm256_madd_epi16(one, ones));
                        sum[r][1] = _mm256_add_epi32(sum[r][1], _mm256_madd_epi16(two, ones));
                    } else {
                        sum[r][0] = _mm256_add_epi16(sum[r][0], one);
                        sum[r][1] = _mm256_add_epi16(sum[r][1], two);
                    }
                }
                IN_ORDER(sum[r][0], sum[r][1]);
            }
        }
#pragma GCC unroll 6
        for (int r = 0; r < count; r++) {
            __m256i left = sum[r][0], right = sum[r][1];
            if (how == IN_MANY_PAIRS) {
                left = _mm256_madd_epi16(left, ones);
                right = _mm256_madd_epi16(right, ones);
            }
            store((__m256i *)(sums + r * COLUMNS), left, right, fresh && start == 0);
        }
    }
}

INLINE AVX2 void multiply_block(
    const uint8_t *rows, int64_t count, const int8_t *panel, int64_t steps, int64_t widen,
    int32_t *sums, int fresh, const int how) {
    const int64_t size = how == IN_16_BITS ? 2 : 1;
    for (; count >= ROWS; count -= ROWS) {
        multiply_rows(rows, panel, steps, widen, sums, fresh, ROWS, how);
        rows += ROWS * ROW_STRIDE * size;
        sums += ROWS * COLUMNS;
    }
    switch (count) {
    case 5: multiply_rows(rows, panel, steps, widen, sums, fresh, 5, how); break;
    case 4: multiply_rows(rows, panel, steps, widen, sums, fresh, 4, how); break;
    case 3: multiply_rows(rows, panel, steps, widen, sums, fresh, 3, how); break;
    case 2: multiply_rows(rows, panel, steps, widen, sums, fresh, 2, how); break;
    case 1: multiply_rows(rows, panel, steps, widen, sums, fresh, 1, how); break;
    default: break;
    }
}

/* The codes in the window of one row of the output, from `start` to `end` of [taps, channels]. */
static void gather(const Product *p, int64_t row, int64_t start, int64_t end, uint8_t *to) {
    const int64_t x = row % p->out_width, y = row / p->out_width % p->out_height;
    const int64_t image = row / p->out_width / p->out_height;
    for (int64_t i = start; i < end;) {
        const int64_t tap = i / p->channels, channel = i % p->channels;
        const int64_t length = p->channels - channel < end - i ? p->channels - channel : end - i;
        const int64_t at_y = y * p->stride_h - p->pad_top + tap / p->kernel_w * p->dilation_h;
        const int64_t at_x = x * p->stride_w - p->pad_left + tap % p->kernel_w * p->dilation_w;
        if (at_y >= 0 && at_y < p->height && at_x >= 0 && at_x < p->width) {
            const int64_t pixel = (image * p->height + at_y) * p->width + at_x;
            memcpy(to, p->codes + pixel * p->channels + channel, (size_t)length);
        } else {
            memset(to, p->row_zero[row / p->rows_per_scale], (size_t)length);
        }
        to += length;
        i += length;
    }
}

/* Rows `first` to `last`, from `start` to `end`, as the instructions want them. */
AVX2 static void gather_block(
    const Product *p, int64_t first, int64_t last, int64_t start, int64_t end, uint8_t *rows) {
    const int wide = p->bits == 8;
    const int64_t length = end - start, padded = round_up(length, wide ? PAIRS : QUADS);
    uint8_t bytes[DEPTH];
    for (int64_t row = first; row < last; row++) {
        uint8_t *to = rows + (row - first) * ROW_STRIDE * (wide ? 2 : 1);
        uint8_t *codes = wide ? bytes : to;
        gather(p, row, start, end, codes);
        memset(codes + length, 0, (size_t)(padded - length));
        if (wide)
            for (int64_t i = 0; i < padded; i++) ((int16_t *)(void *)to)[i] = codes[i];
    }
}

/* scale · (sum - zero · total - shift · row's sum) + bias, of one row. */
AVX2 static void finish(
    const Product *p, int64_t row, int64_t column, int64_t count, const int32_t *sums) {
    const float others = p->row_sum ? p->row_sum[row] : 0;
    /* A row that holds NaN has no codes, but its sum is NaN. */
    const float s = others != others ? others : p->row_scale[row / p->rows_per_scale];
    const float *scale = p->scale + column;
    const float *shift = p->shift ? p->shift + column : NULL;
    const float *bias = p->bias ? p->bias + column : NULL;
    const int32_t *totals = p->totals + column;
    const uint32_t zero = (uint32_t)p->row_zero[row / p->rows_per_scale];
    float values[COLUMNS];
    for (int64_t i = 0; i < count; i++)
        /* Without sign: what wraps on the way is right in the end. */
        values[i] = (float)(int32_t)((uint32_t)sums[i] - zero * (uint32_t)totals[i]) * scale[i];
    if (shift)
        for (int64_t i = 0; i < count; i++) values[i] -= others * shift[i];
    for (int64_t i = 0; i < count; i++) values[i] *= s;
    if (bias)
        for (int64_t i = 0; i < count; i++) values[i] += bias[i];
    if (p->dtype == FLOAT32) {
        memcpy((float *)p->out + row * p->out_stride + column, values, (size_t)count * sizeof(float));
    } else {
        uint16_t *to = (uint16_t *)p->out + row * p->out_stride + column;
        for (int64_t i = 0; i < count; i++) to[i] = narrow(values[i]);
    }
}

/* Rows `first` to `last` of the output, and columns `left` to `right`; `left` begins a panel. */
AVX2 static void multiply(
    const Product *p, int64_t first, int64_t last, int64_t left, int64_t right, uint8_t *scratch) {
    const int together = p->bits == 8 ? PAIRS : QUADS;
    const int64_t count = p->kernel_h * p->kernel_w * p->channels;
    const int64_t depth = round_up(count, together);
    /* So many pairs of the greatest products stay row_end 2^15. */
    const int64_t widen = 32767 / (2 * 255 * (p->bits == 1 ? 1 : 1 << (p->bits - 1)));
    int32_t *sums = (int32_t *)(void *)scratch;
    uint8_t *rows = scratch + sizeof(int32_t) * BLOCK * COLUMNS;
    for (int64_t row = first; row < last; row += BLOCK)
        for (int64_t column = left; column < right; column += COLUMNS) {
            const int64_t row_end = row + BLOCK < last ? row + BLOCK : last;
            const int64_t column_end = column + COLUMNS < right ? column + COLUMNS : right;
            for (int64_t start = 0; start < count; start += DEPTH) {
                const int64_t end = start + DEPTH < count ? start + DEPTH : count;
                const int64_t steps = (end - start + together - 1) / together;
                gather_block(p, row, row_end, start, end, rows);
                for (int64_t at = column; at < column_end; at += PANEL) {
                    const int8_t *panel = p->panels + at * depth + start * PANEL;
                    int32_t *to = sums + (at - column);
                    if (p->bits == 8)
                        multiply_block(rows, row_end - row, panel, steps, widen, to, start == 0, IN_16_BITS);
                    else if (widen < 8)
                        multiply_block(rows, row_end - row, panel, steps, widen, to, start == 0, IN_PAIRS);
                    else
                        multiply_block(rows, row_end - row, panel, steps, widen, to, start == 0, IN_MANY_PAIRS);
                }
            }
            for (int64_t r = row; r < row_end; r++)
                finish(p, r, column, column_end - column, sums + (r - row) * COLUMNS);
        }
}

/* Rows, or panels, start to stop of the output. */
API AVX2 void mz_multiply(const Product *p, int64_t start, int64_t stop, int64_t thread) {
    uint8_t *scratch = p->scratch + thread * mz_products();
    if (p->by_rows) {
        multiply(p, start, stop, 0, p->outputs, scratch);
        return;
    }
    const int64_t right = stop * PANEL < p->outputs ? stop * PANEL : p->outputs;
    multiply(p, 0, p->rows, start * PANEL, right, scratch);
}
#else
API void mz_multiply(const Product *p, int64_t start, int64_t stop, int64_t thread) {
    (void)p, (void)start, (void)stop, (void)thread;
}
#endif

/* The version that library.py expects. */
API int64_t mz_version(void) {
    return 4;
}
