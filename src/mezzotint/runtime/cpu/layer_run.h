/* All that the threads of one call of a layer share, and the tiles that they go through. */
#ifndef MEZZOTINT_LAYER_RUN_H
#define MEZZOTINT_LAYER_RUN_H

#include "layer.h"
#include "stages.h"

/* Bytes of panels that are laid out before they are multiplied: they should stay in a core's cache. */
enum { TILE_BYTES = 1 << 20 };
/* Values of an input that a thread quantizes at a time; and the most parts an image is cut into. */
enum { PART_VALUES = 1 << 14, MOST_PARTS = 256 };
/* Pixels that are transposed at a time. */
enum { TURNED_PIXELS = 64 };
/* Parts of a stage for each thread, so that one that is held up leaves its share to others. */
enum { PARTS = 4 };

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
    int64_t own_bytes, code_stride, pixels, parts, part_pixels, depth, groups, group_rows;
    int depthwise;       /* each channel by itself: they count as one group */
} Run;

/* The tile that comes next: some rows of a segment, of one group of channels. */
typedef struct {
    Segment rows;        /* of the group */
    int64_t segment, group, panel, count, first; /* panel of the group, panels, stored row */
} Cursor;

static inline int64_t min_of(int64_t one, int64_t two) {
    return one < two ? one : two;
}

static inline int is_rows(const Call *call) {
    return call->height * call->width == 1;
}

static inline const void *value_at(const void *x, int64_t index, int32_t dtype) {
    return (const uint8_t *)x + index * (dtype == FLOAT32 ? 4 : 2);
}

#endif
