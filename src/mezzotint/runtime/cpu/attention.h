/* What attention is given, and how it lies in memory while it is computed. */
#ifndef MEZZOTINT_ATTENTION_H
#define MEZZOTINT_ATTENTION_H

#include "common.h"

/* Masks: none, of bytes that are 1 where a key is attended to, or added to the scores. */
enum { NO_MASK, BOOL_MASK, FLOAT32_MASK, BFLOAT16_MASK };

enum { AVX2, AVX512, AVX512_BF16 };

/* Queries that share a block of keys while it is in the cache; a multiple of TILE. */
enum { ROWS = 96, TILE = 6, MOST_KEYS = 512 };

/* Strides are counted in elements; features and values of one token stand side by side.
 * Panels hold units of 32 bits, of floats or of pairs of bfloat16: keys
 * [heads, vectors of keys, units of features, lanes], where a pair is two features of a key, and
 * values [heads, units of keys, vectors of values, lanes], where it is one feature of two keys. */
typedef struct {
    const void *query, *key, *value, *mask;
    void *out, *key_panels, *value_panels, *scratch;
    /* Of the heads of queries [first_head, first_head + heads): of all batches, one after another. */
    int64_t first_head, heads, heads_per_batch, heads_per_key;
    int64_t queries, keys, features, values;
    int64_t query_batch, query_head, query_row, key_batch, key_head, key_row;
    int64_t value_batch, value_head, value_row, out_batch, out_head, out_row;
    int64_t mask_batch, mask_head, mask_row, mask_column;
    int32_t dtype, mask_kind, causal, unit;
    float scale;
} Attention;

/* Places of one thread in its scratch. */
typedef struct {
    uint32_t *query;        /* [ROWS, units of features] */
    float *scores;          /* [TILE, keys of a block] */
    uint32_t *probabilities; /* [TILE, units of keys of a block] */
    float *added;           /* [keys of a block], of the mask */
    float *out;             /* [ROWS, values, in full vectors] */
    float *highest, *sum;   /* [ROWS] */
} Room;

static inline int64_t in_units(int64_t count, int64_t unit) {
    return (count + unit - 1) / unit;
}

/* Keys of a block: fewer for wide heads, so that they stay in the cache. */
static inline int64_t block_keys(const Attention *a) {
    const int64_t wide = a->features > a->values ? a->features : a->values;
    return wide <= 64 ? MOST_KEYS : wide <= 128 ? MOST_KEYS / 2 : MOST_KEYS / 4;
}

static inline float read_number(const void *from, int64_t at, int dtype) {
    return dtype == FLOAT32 ? ((const float *)from)[at] : widen(((const uint16_t *)from)[at]);
}

static inline const void *moved(const void *from, int64_t elements, int dtype) {
    return (const char *)from + elements * (dtype == FLOAT32 ? 4 : 2);
}

#endif
