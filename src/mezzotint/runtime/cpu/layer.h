/* A packed layer, as Python describes it, and the work of one call of it. */
#ifndef MEZZOTINT_LAYER_H
#define MEZZOTINT_LAYER_H

#include "common.h"

/* Outputs that lie side by side in a panel. */
enum { PANEL = 16 };
/* The most panels that are multiplied before their outputs are written. */
enum { TILE_PANELS = 32, TILE_COLUMNS = TILE_PANELS * PANEL };
/* Rows that are multiplied before their outputs are written. */
enum { BLOCK = 48 };

/* How the numbers that belong to a row of a weight say what its integers stand for. */
enum { AFFINE = 0, TWO_LEVELS = 1 };

/* Rows of a weight that are stored in one format, one after another; bound_layer.py fills it in. */
typedef struct {
    const uint8_t *packed;  /* [rows, bytes of a row]; NULL where panels are held */
    const int8_t *panels;   /* held in a unit's layout, or NULL */
    const int32_t *totals;  /* of held panels: per row, the sum of its integers */
    const int8_t *book;     /* 2^bits integers that codes stand for; NULL: they count from a middle */
    const void *scale;      /* per row; of TWO_LEVELS the levels, two a row */
    const uint8_t *zero;    /* per row, the code of 0; NULL where that is the middle */
    int64_t rows;
    int64_t scale_step, zero_step; /* from row to row; 0 where all rows share one */
    int32_t bits;           /* of a code */
    int32_t width;          /* of an integer */
    int32_t scale_dtype, form;
} Segment;

/* What stays the same in all calls of a layer; bound_layer.py fills it in. */
typedef struct {
    const Segment *segments;
    const int32_t *order;   /* per output, its stored row; NULL where they are equal */
    int64_t segment_count;
    int64_t channels, groups; /* channels of one group */
    int64_t outputs;
    int64_t kernel_h, kernel_w;
    int64_t stride_h, stride_w;
    int64_t pad_top, pad_left;
    int64_t dilation_h, dilation_w;
    int32_t unit;           /* that multiplies, and whose layout held panels have */
    int32_t low, high, shift; /* codes of inputs reach from low to high, and are stored plus shift */
    int32_t dynamic;        /* whether scales come from the inputs, one for each row or image */
    int32_t own_zeros;      /* whether zero points do, too */
} Layer;

/* One call of a layer. A Linear one is a convolution of images of one pixel. */
typedef struct {
    const Layer *layer;
    const void *x;          /* [images, height, width, channels], or, with planes, channels first */
    const void *bias;       /* per output, or NULL */
    void *out;              /* [rows, outputs] */
    uint8_t *scratch;       /* mz_layer_bytes() */
    int64_t images, height, width, out_height, out_width;
    int64_t x_stride;       /* values from one pixel to the next, without planes */
    int32_t planes, x_dtype, bias_dtype, out_dtype;
    int32_t zero;           /* where zero points are calibrated */
    float scale;            /* where scales are calibrated */
    int32_t threads;
} Call;

/* Codes of a call's input, and where the windows of its output lie over them. */
typedef struct {
    const uint8_t *codes;   /* of a group's first channel */
    int64_t pixel_stride;   /* bytes from one pixel to the next */
    int64_t height, width, channels;
    int64_t kernel_h, kernel_w, stride_h, stride_w;
    int64_t pad_top, pad_left, dilation_h, dilation_w;
    int64_t out_height, out_width;
    int64_t rows_per_scale;
    const float *scale;     /* one for `rows_per_scale` rows; NaN spoils them */
    const int32_t *zero;    /* the code of 0, likewise */
    const float *sums;      /* of each pixel's codes less their zeros; NULL where channels are in groups */
} Windows;

/* How a unit multiplies weights of a width; most know one way. */
enum { IN_STEPS, IN_16_BITS, IN_MANY_PAIRS };

/* Some outputs of a layer, ready to be multiplied. */
typedef struct {
    const int8_t *panels;
    const int32_t *totals;
    const float *scale, *shift, *bias; /* shift and bias may be NULL */
    int64_t columns, depth;
    int32_t width;          /* of the integers */
} Tile;

/* Where an output goes. */
typedef struct {
    void *out;
    const int32_t *place;   /* per column of the tile, or NULL */
    int64_t first;          /* column of the output, without places */
    int64_t stride;
    int32_t dtype;
} Target;

/* Instructions that multiply, and what was made of them. */
typedef struct {
    const char *name;
    int (*supported)(void);
    /* Weights of a width that are multiplied to one sum, and lie side by side in a panel. */
    int64_t (*together)(int32_t width);
    /* Bytes of scratch that a thread needs for `multiply`. */
    int64_t (*scratch)(void);
    /* Panels `start` to `stop` of some rows, and the sums of their integers. */
    void (*lay)(
        const Segment *rows, int64_t channels, int64_t taps, int64_t start, int64_t stop,
        int8_t *panels, int32_t *totals, uint8_t *scratch);
    /* Rows `first` to `last` of the output, and columns `left` to `right` of a tile; `left` begins
     * a panel. */
    void (*multiply)(
        const Windows *windows, const Tile *tile, const Target *target, const int64_t range[4],
        uint8_t *scratch);
    /* Channels by themselves: columns `first` to `last` of a tile that begins with row `start`. */
    void (*lay_depthwise)(
        const Segment *rows, int64_t taps, int64_t start, int64_t first, int64_t last, int16_t *out,
        uint8_t *scratch);
    /* One row of the output, by all of a tile. */
    void (*multiply_depthwise)(
        const Windows *windows, const Tile *tile, const int16_t *weights, const Target *target,
        int64_t row);
} Unit;

/* Which units the compiler knows. GCC keeps vectors on a stack that 64-bit Windows does not align for
 * them. */
#if defined(__x86_64__) && defined(__GNUC__) && !(defined(_WIN32) && !defined(__clang__))
#define HAS_AVX2 1
#if defined(__clang__) || __GNUC__ >= 8
#define HAS_AVX512 1
#endif
#if defined(__clang__) || __GNUC__ >= 11
#define HAS_AVX_VNNI 1
#endif
#endif
#if defined(EMULATE_NEON) || (defined(__aarch64__) && defined(__GNUC__))
#define HAS_NEON 1
#endif

/* All of them, fastest first, the last one without a name. */
extern const Unit *const units[];
#if HAS_AVX512
extern const Unit unit_avx512;
#endif
#if HAS_AVX_VNNI
extern const Unit unit_avx_vnni;
#endif
#if HAS_AVX2
extern const Unit unit_avx2;
#endif
#if HAS_NEON
extern const Unit unit_neon;
#endif

/* Bytes of scratch that a thread needs to lay out a panel of that depth. */
static inline int64_t lay_bytes(int64_t depth) {
    return (PANEL + 2) * depth + 64 * PANEL;
}

static inline int64_t round_up(int64_t count, int64_t step) {
    return (count + step - 1) / step * step;
}

#endif
