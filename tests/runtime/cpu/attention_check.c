/* Attention of random shapes by every unit that this machine has, against sums of doubles.
 *
 * Every buffer is as long as it must be and no longer, as in layer_check.c.
 */
#include "attention.h"

#include "check.h"

#include <math.h>

API int64_t mz_attention_units(void);
API int64_t mz_attention_size(const Attention *a, int64_t of);
API void mz_attention_panels(const Attention *a, int64_t start, int64_t stop, int64_t thread);
API void mz_attention(const Attention *a, int64_t start, int64_t stop, int64_t thread);

static void put(void *to, int64_t at, int dtype, float value) {
    if (dtype == FLOAT32) ((float *)to)[at] = value;
    else ((uint16_t *)to)[at] = narrow(value);
}

/* Numbers from -1 to 1 that bfloat16 has. */
static void *numbers(int64_t count, int dtype) {
    void *found = room(count * (dtype == FLOAT32 ? 4 : 2));
    for (int64_t i = 0; i < count; i++) put(found, i, dtype, (float)pick(-64, 64) / 64);
    return found;
}

static void *mask_of(int64_t count, int kind) {
    if (kind != BOOL_MASK) {
        const int dtype = kind == FLOAT32_MASK ? FLOAT32 : BFLOAT16;
        void *found = numbers(count, dtype);
        for (int64_t i = 0; i < count; i++) {
            const int64_t which = pick(0, 9);
            if (which < 2) put(found, i, dtype, which ? -INFINITY : -3.0e38f);
        }
        return found;
    }
    char *found = room(count);
    for (int64_t i = 0; i < count; i++) found[i] = (char)pick(0, 1);
    return found;
}

static double masked(const Attention *a, int64_t at) {
    if (a->mask_kind == NO_MASK) return 0;
    if (a->mask_kind == BOOL_MASK) return ((const char *)a->mask)[at] ? 0 : -INFINITY;
    return (double)read_number(a->mask, at, a->mask_kind == FLOAT32_MASK ? FLOAT32 : BFLOAT16);
}

/* The greatest error of a query's output. */
static double error_of(const Attention *a, int64_t batch, int64_t head, int64_t query, double *scores, double *out) {
    const int64_t shared = head / a->heads_per_key;
    const int64_t q = batch * a->query_batch + head * a->query_head + query * a->query_row;
    double most = -INFINITY, sum = 0, worst = 0;
    for (int64_t k = 0; k < a->keys; k++) {
        const int64_t key = batch * a->key_batch + shared * a->key_head + k * a->key_row;
        const int64_t mask = batch * a->mask_batch + head * a->mask_head + query * a->mask_row + k * a->mask_column;
        scores[k] = 0;
        for (int64_t i = 0; i < a->features; i++)
            scores[k] += (double)read_number(a->query, q + i, a->dtype) * (double)read_number(a->key, key + i, a->dtype);
        scores[k] = scores[k] * (double)a->scale + (a->causal && k > query ? -INFINITY : masked(a, mask));
        if (scores[k] > most) most = scores[k];
    }
    for (int64_t i = 0; i < a->values; i++) out[i] = 0;
    for (int64_t k = 0; k < a->keys && most > -INFINITY; k++) {
        const double p = exp(scores[k] - most);
        const int64_t value = batch * a->value_batch + shared * a->value_head + k * a->value_row;
        sum += p;
        for (int64_t i = 0; i < a->values; i++) out[i] += p * (double)read_number(a->value, value + i, a->dtype);
    }
    for (int64_t i = 0; i < a->values; i++) {
        const int64_t at = batch * a->out_batch + head * a->out_head + query * a->out_row + i;
        const double off = fabs((double)read_number(a->out, at, a->dtype) - (sum > 0 ? out[i] / sum : 0));
        if (!(off <= worst)) worst = off;
    }
    return worst;
}

static int check(int unit, int dtype) {
    const int64_t batches = pick(1, 2), key_heads = pick(1, 2), shared = pick(1, 2);
    const int64_t heads = key_heads * shared, size = dtype == FLOAT32 ? 4 : 2;
    Attention a = {
        .heads_per_batch = heads, .heads_per_key = shared, .queries = pick(1, 110), .keys = pick(1, 140),
        .features = pick(1, 20), .values = pick(1, 40), .dtype = dtype, .mask_kind = (int)pick(0, 3),
        .unit = unit, .scale = 0.3f};
    if (!pick(0, 7)) a.keys = pick(500, 600); /* more than one block */
    if (!pick(0, 7)) a.features = pick(60, 140);
    a.causal = a.mask_kind == NO_MASK && pick(0, 1);
    /* Heads of queries behind their tokens, those of keys before them. */
    a.query_head = a.features, a.query_row = heads * a.features, a.query_batch = a.queries * a.query_row;
    a.out_head = a.values, a.out_row = heads * a.values, a.out_batch = a.queries * a.out_row;
    a.key_row = a.features, a.key_head = a.keys * a.key_row, a.key_batch = key_heads * a.key_head;
    a.value_row = a.values, a.value_head = a.keys * a.value_row, a.value_batch = key_heads * a.value_head;
    a.query = numbers(batches * a.query_batch, dtype);
    a.key = numbers(batches * a.key_batch, dtype);
    a.value = numbers(batches * a.value_batch, dtype);
    a.out = room(batches * a.out_batch * size);
    if (a.mask_kind != NO_MASK) { /* repeated along any of its sizes */
        int64_t count = 1;
        if (pick(0, 2)) a.mask_column = count, count *= a.keys;
        if (pick(0, 2)) a.mask_row = count, count *= a.queries;
        if (pick(0, 1)) a.mask_head = count, count *= heads;
        if (pick(0, 1)) a.mask_batch = count, count *= batches;
        a.mask = mask_of(count, a.mask_kind);
    }
    /* Some heads at a time, from the first key's on. */
    const int64_t all = batches * key_heads, together = pick(1, all);
    a.scratch = room(mz_attention_size(&a, 0));
    a.key_panels = room(together * mz_attention_size(&a, 1));
    a.value_panels = room(together * mz_attention_size(&a, 2));
    for (int64_t first = 0; first < all; first += together) {
        const int64_t count = all - first < together ? all - first : together;
        a.first_head = first * shared, a.heads = count * shared;
        mz_attention_panels(&a, 0, count * mz_attention_size(&a, 3), 0);
        mz_attention(&a, 0, a.heads * mz_attention_size(&a, 4), 0);
    }
    double *scores = room(a.keys * 8), *out = room(a.values * 8), worst = 0;
    for (int64_t batch = 0; batch < batches; batch++)
        for (int64_t head = 0; head < heads; head++)
            for (int64_t query = 0; query < a.queries; query++) {
                const double found = error_of(&a, batch, head, query, scores, out);
                if (!(found <= worst)) worst = found;
            }
    free((void *)a.query), free((void *)a.key), free((void *)a.value), free((void *)a.mask);
    free(a.out), free(a.scratch), free(a.key_panels), free(a.value_panels), free(scores), free(out);
    if (worst <= (dtype == FLOAT32 ? 1e-5 : 1e-2)) return 0;
    printf(
        "attention, unit %d: off by %g: dtype %d, mask %d, causal %d, %d queries, %d keys, %d features, %d values\n",
        unit, worst, dtype, a.mask_kind, a.causal, (int)a.queries, (int)a.keys, (int)a.features, (int)a.values);
    return 1;
}

int check_attention(int cases) {
    for (int unit = AVX2; unit <= AVX512_BF16; unit++)
        for (int index = 0; index < cases && mz_attention_units() >> unit & 1; index++) {
            const int dtype = unit == AVX512_BF16 ? BFLOAT16 : index % 2 ? BFLOAT16 : FLOAT32;
            if (check(unit, dtype)) return 1;
        }
    return 0;
}
