/* Weights as they are stored, laid out in a panel of sixteen outputs: [depth / together][16][together].
 *
 * The depth goes through all channels of the first tap, then of the next; what is stored goes through all
 * taps of the first channel. A row is stored in eight slots that share bytes (packing.py). Where each slot
 * holds whole channels, and four at a time, bytes are put in their places while they are packed, all slots
 * at once; then each slot is unpacked from there. Other rows are unpacked first.
 */
#include "layer.h"

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define HAS_SHUFFLES 1
#endif
#endif

typedef uint8_t Bytes16 __attribute__((vector_size(16)));
typedef uint32_t Words4 __attribute__((vector_size(16)));

/* The low, or the high, halves of two vectors, by turns: bytes, pairs, words. */
#if HAS_SHUFFLES
#define LOW_BYTES(a, b) \
    __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define HIGH_BYTES(a, b) \
    __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#define LOW_PAIRS(a, b) \
    __builtin_shufflevector(a, b, 0, 1, 16, 17, 2, 3, 18, 19, 4, 5, 20, 21, 6, 7, 22, 23)
#define HIGH_PAIRS(a, b) \
    __builtin_shufflevector(a, b, 8, 9, 24, 25, 10, 11, 26, 27, 12, 13, 28, 29, 14, 15, 30, 31)
#define LOW_WORDS(a, b) \
    __builtin_shufflevector(a, b, 0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23)
#define HIGH_WORDS(a, b) \
    __builtin_shufflevector(a, b, 8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31)
#define LOW_HALVES(a, b) \
    __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23)
#define HIGH_HALVES(a, b) \
    __builtin_shufflevector(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31)

/* Sixteen bytes of each of sixteen rows, which are `stride` apart: byte by byte, of all rows. */
INLINE TARGET void turn_bytes(const uint8_t *rows, int64_t stride, uint8_t *out) {
    Bytes16 a[16], b[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) memcpy(&a[i], rows + i * stride, 16);
    /* Rows i and i + 8, then the results of that, and so on: after four times, all are turned. */
#pragma GCC unroll 4
    for (int round = 0; round < 4; round++) {
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) {
            b[2 * i] = LOW_BYTES(a[i], a[i + 8]);
            b[2 * i + 1] = HIGH_BYTES(a[i], a[i + 8]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) a[i] = b[i];
    }
    memcpy(out, a, sizeof a);
}

/* Sixteen bytes of each of four rows: four bytes of each row by turns, 16 rows apart. */
INLINE TARGET void turn_words(const uint8_t *rows, int64_t stride, uint8_t *out) {
    Bytes16 a[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) memcpy(&a[i], rows + i * stride, 16);
    const Bytes16 low = LOW_WORDS(a[0], a[1]), high = HIGH_WORDS(a[0], a[1]);
    const Bytes16 low2 = LOW_WORDS(a[2], a[3]), high2 = HIGH_WORDS(a[2], a[3]);
    const Bytes16 turned[4] = {
        LOW_HALVES(low, low2), HIGH_HALVES(low, low2), LOW_HALVES(high, high2),
        HIGH_HALVES(high, high2)};
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) memcpy(out + i * 4 * PANEL, &turned[i], 16);
}

/* Four vectors of sixteen rows' bytes: the four bytes of a row side by side. */
INLINE TARGET void join_bytes(const uint8_t *from, int64_t stride, uint8_t *out) {
    Bytes16 a[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) memcpy(&a[i], from + i * stride, 16);
    const Bytes16 low = LOW_BYTES(a[0], a[1]), high = HIGH_BYTES(a[0], a[1]);
    const Bytes16 low2 = LOW_BYTES(a[2], a[3]), high2 = HIGH_BYTES(a[2], a[3]);
    const Bytes16 joined[4] = {
        LOW_PAIRS(low, low2), HIGH_PAIRS(low, low2), LOW_PAIRS(high, high2),
        HIGH_PAIRS(high, high2)};
    memcpy(out, joined, sizeof joined);
}
#else
INLINE TARGET void turn_bytes(const uint8_t *rows, int64_t stride, uint8_t *out) {
    for (int o = 0; o < 16; o++)
        for (int i = 0; i < 16; i++) out[i * 16 + o] = rows[o * stride + i];
}

INLINE TARGET void turn_words(const uint8_t *rows, int64_t stride, uint8_t *out) {
    for (int o = 0; o < 4; o++)
        for (int i = 0; i < 4; i++) memcpy(out + i * 4 * PANEL + 4 * o, rows + o * stride + 4 * i, 4);
}

INLINE TARGET void join_bytes(const uint8_t *from, int64_t stride, uint8_t *out) {
    for (int o = 0; o < 16; o++)
        for (int i = 0; i < 4; i++) out[4 * o + i] = from[i * stride + o];
}
#endif

/* Four bytes at a time of sixteen rows, side by side. `count` is a multiple of four. */
INLINE TARGET void lay_words(const uint8_t *rows, int64_t stride, int64_t count, uint8_t *out) {
    int64_t i = 0;
    for (; i + 16 <= count; i += 16)
        for (int64_t o = 0; o < PANEL; o += 4)
            turn_words(rows + o * stride + i, stride, out + i * PANEL + 4 * o);
    for (; i < count; i += 4)
        for (int64_t o = 0; o < PANEL; o++)
            memcpy(out + i * PANEL + 4 * o, rows + o * stride + i, 4);
}

/* The same of bytes [channels, taps]: those of four channels of a tap, tap by tap. */
INLINE TARGET void lay_taps(
    const uint8_t *rows, int64_t stride, int64_t channels, int64_t taps, uint8_t *turned,
    uint8_t *out) {
    const int64_t count = channels * taps;
    int64_t i = 0;
    for (; i + 16 <= count; i += 16) turn_bytes(rows + i, stride, turned + i * PANEL);
    for (; i < count; i++)
        for (int64_t o = 0; o < PANEL; o++) turned[i * PANEL + o] = rows[o * stride + i];
    for (int64_t tap = 0; tap < taps; tap++)
        for (int64_t c = 0; c < channels; c += 4)
            join_bytes(
                turned + (c * taps + tap) * PANEL, taps * PANEL,
                out + (tap * channels + c) * PANEL);
}

/* `count` bytes of one slot, of the planes that hold it: code - middle, or the code. The shifts go
 * through four bytes at once; masks leave what belongs to each. */
INLINE TARGET void unpack_slot(
    const uint8_t *low, const uint8_t *high, int64_t count, int bits, int shift, int centred,
    uint8_t *out) {
    const uint32_t each = 0x01010101u, mask = ((1u << bits) - 1) & 0xff;
    const int rest = 8 - shift, across = shift + bits > 8;
    const uint32_t kept = (mask & (0xffu >> shift)) * each;
    const uint32_t added = across ? (mask & (0xffu << rest) & 0xff) * each : 0;
    const uint32_t top = 0x80808080u, middle = (bits == 1 ? 1u : (1u << (bits - 1)) & 0x7f) * each;
    const int twice = bits == 1;
    for (int64_t i = 0; i < count; i += 4) {
        uint32_t one, two, code;
        memcpy(&one, low + i, 4);
        memcpy(&two, high + i, 4);
        code = (one >> shift & kept) | (two << (rest & 31) & added);
        /* Subtraction byte by byte: the top bit is lent to each, and given back. At eight bits it is
         * the only one that changes. */
        if (centred)
            code = bits == 8 ? code ^ top : ((code << twice | top) - middle) ^ top;
        memcpy(out + i, &code, 4);
    }
}

/* All slots of a panel whose bytes are laid out plane by plane in `planes`. */
INLINE TARGET void unpack_slots(
    const uint8_t *planes, int64_t channels, int64_t taps, int bits, int centred, uint8_t *out) {
    const int64_t part = channels / SLOTS * PANEL, plane = part * taps;
    for (int slot = 0; slot < SLOTS; slot++) {
        const int at = slot * bits / 8, shift = slot * bits % 8;
        const uint8_t *low = planes + at * plane, *high = shift + bits > 8 ? low + plane : low;
        for (int64_t tap = 0; tap < taps; tap++)
            unpack_slot(
                low + tap * part, high + tap * part, part, bits, shift, centred,
                out + tap * channels * PANEL + slot * part);
    }
}

/* One panel, of rows that are all there, as described above. */
INLINE TARGET void lay_slots(
    const uint8_t *packed, int64_t channels, int64_t taps, int bits, const int8_t *book, uint8_t *out,
    uint8_t *scratch) {
    const int64_t group = channels / SLOTS * taps, stride = bits * group;
    uint8_t *turned = scratch + bits * group * PANEL;
    for (int plane = 0; plane < bits; plane++) {
        const uint8_t *rows = packed + plane * group;
        uint8_t *to = scratch + plane * group * PANEL;
        if (taps == 1) lay_words(rows, stride, group, to);
        else lay_taps(rows, stride, channels / SLOTS, taps, turned, to);
    }
    unpack_slots(scratch, channels, taps, bits, !book, out);
    if (book) look_up_row(book, bits, out, channels * taps * PANEL);
}

/* The codes of one row in the order of a panel's depth, [taps, channels], less what is taken from
 * all of them. */
INLINE TARGET void order_row(
    const uint8_t *codes, int64_t channels, int64_t taps, uint8_t times, uint8_t less,
    uint8_t *out) {
    for (int64_t tap = 0; tap < taps; tap++)
        for (int64_t c = 0; c < channels; c++)
            out[tap * channels + c] = (uint8_t)(codes[c * taps + tap] * times - less);
}

/* `size` weights at a time of sixteen rows of `depth`, side by side. */
INLINE TARGET void interleave(const uint8_t *rows, int64_t depth, uint8_t *out, const int64_t size) {
    /* In runs of a few lines, so that what is written stays near until its line is full. */
    for (int64_t start = 0; start < depth; start += 256) {
        const int64_t end = start + 256 < depth ? start + 256 : depth;
        for (int64_t o = 0; o < PANEL; o++)
            for (int64_t i = start; i < end; i += size)
                memcpy(out + i * PANEL + o * size, rows + o * depth + i, (size_t)size);
    }
}

/* One panel of any rows: each is unpacked and put in order first. */
INLINE TARGET void lay_rows(
    const Segment *w, int64_t channels, int64_t taps, int64_t first, int64_t together, uint8_t *out,
    uint8_t *scratch) {
    const int bits = w->bits;
    const int64_t count = channels * taps, depth = round_up(count, together);
    const int64_t width = row_bytes(count, bits);
    const uint8_t times = bits == 1 && !w->book ? 2 : 1;
    const uint8_t less = (uint8_t)(w->book ? 0 : bits == 1 ? 1 : 1u << (bits - 1));
    uint8_t *codes = scratch, *ordered = codes + depth;
    for (int64_t o = 0; o < PANEL; o++) {
        uint8_t *row = ordered + o * depth;
        const int64_t filled = first + o < w->rows ? count : 0;
        memset(row + filled, 0, (size_t)(depth - filled));
        if (!filled) continue;
        unpack_row(w->packed + (first + o) * width, count, bits, codes);
        if (w->book) look_up_row(w->book, bits, codes, count);
        if (taps == 1) order_row(codes, count, 1, times, less, row);
        else if (taps == 9) order_row(codes, channels, 9, times, less, row);
        else order_row(codes, channels, taps, times, less, row);
    }
    if (together == 4) interleave(ordered, depth, out, 4);
    else interleave(ordered, depth, out, 2);
}

/* Panel number `panel` of some rows. What fills it up is 0. */
static TARGET void lay_panel(
    const Segment *w, int64_t channels, int64_t taps, int64_t panel, int64_t together, int8_t *panels,
    uint8_t *scratch) {
    uint8_t *out = (uint8_t *)panels;
    const int64_t first = panel * PANEL;
    const int whole = first + PANEL <= w->rows;
    if (whole && together == 4 && channels % (4 * SLOTS) == 0)
        lay_slots(
            w->packed + first * row_bytes(channels * taps, w->bits), channels, taps, w->bits, w->book,
            out, scratch);
    else lay_rows(w, channels, taps, first, together, out, scratch);
}
