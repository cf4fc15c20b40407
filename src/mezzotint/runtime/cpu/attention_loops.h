/* Attention for one vector unit; included once for each, which says by macros what it can do:
 *
 * NAME(x)      the name of a function for this unit
 * TARGET       attribute of its functions
 * LANES        floats of a vector
 * COLUMNS      vectors of sums side by side; TILE rows of them fit the registers
 * PAIR         numbers of a unit of 32 bits: 1 float, or 2 bfloat16
 * Vector, and ZERO, SPREAD, LOAD, STORE, ADD, SUB, MUL, MAX, FMA of vectors of floats
 * ROUND(x)     to whole numbers
 * HIGHEST(x), TOTAL(x)  of a vector's floats
 * POWER(m, n)  m · 2^n, for whole n from -200 to 0; 0 for what is too small
 * DOT(s, u, v) s + products of the units in u and v
 * LOAD_UNITS, SPREAD_UNITS  vectors of units
 * STORE_UNITS(to, at, x)    a vector of floats, as numbers `at` and following of units
 */
#define INLINE static inline __attribute__((always_inline))

/* Keeps sums in their registers. */
#define STEPS _Pragma("GCC unroll 6")

/* 2^x for x of at most 0, as exact as units are; 0 where it is too small, NaN for NaN. */
INLINE TARGET Vector NAME(power)(Vector x) {
    /* NaN is the second operand, which stays. */
    x = MAX(SPREAD(-200.0f), x);
    const Vector whole = ROUND(x), part = SUB(x, whole);
#if PAIR == 1
    Vector y = SPREAD(1.540353039e-4f);
    y = FMA(y, part, SPREAD(1.333355814e-3f));
    y = FMA(y, part, SPREAD(9.618129107e-3f));
#else
    Vector y = SPREAD(9.618129107e-3f);
#endif
    y = FMA(y, part, SPREAD(5.550410866e-2f));
    y = FMA(y, part, SPREAD(2.402265069e-1f));
    y = FMA(y, part, SPREAD(6.931471806e-1f));
    y = FMA(y, part, SPREAD(1.0f));
    return POWER(y, whole);
}

/* Sums of TILE rows by `count` vectors: units of rows, `row_stride` apart, by units of panels, of
 * which one vector follows another by `column_stride`, and one step another by `step_stride`. */
INLINE TARGET void NAME(multiply)(
    const uint32_t *rows, int64_t row_stride, const uint32_t *panel, int64_t column_stride,
    int64_t step_stride, int64_t steps, float *sums, int64_t sum_stride, int more,
    const int count) {
    Vector sum[TILE][COLUMNS];
    STEPS for (int r = 0; r < TILE; r++)
        STEPS for (int c = 0; c < count; c++)
            sum[r][c] = more ? LOAD(sums + r * sum_stride + c * LANES) : ZERO;
    for (int64_t step = 0; step < steps; step++, panel += step_stride) {
        Units column[COLUMNS];
        STEPS for (int c = 0; c < count; c++) column[c] = LOAD_UNITS(panel + c * column_stride);
        STEPS for (int r = 0; r < TILE; r++) {
            const Units row = SPREAD_UNITS(rows[r * row_stride + step]);
            STEPS for (int c = 0; c < count; c++) sum[r][c] = DOT(sum[r][c], row, column[c]);
        }
    }
    STEPS for (int r = 0; r < TILE; r++)
        STEPS for (int c = 0; c < count; c++) STORE(sums + r * sum_stride + c * LANES, sum[r][c]);
}

/* The same for any number of vectors. */
TARGET static void NAME(multiply_all)(
    const uint32_t *rows, int64_t row_stride, const uint32_t *panel, int64_t column_stride,
    int64_t step_stride, int64_t steps, float *sums, int64_t sum_stride, int more,
    int64_t count) {
    while (count > 0) {
        /* Five vectors are three and two: one alone would wait for itself. */
        const int64_t rest = count % COLUMNS;
        const int64_t now = count > COLUMNS && count < 2 * COLUMNS && rest == 1 ? COLUMNS - 1
                          : count < COLUMNS ? count : COLUMNS;
        switch (now) {
#if COLUMNS > 2
        case 4: NAME(multiply)(rows, row_stride, panel, column_stride, step_stride, steps, sums, sum_stride, more, 4); break;
        case 3: NAME(multiply)(rows, row_stride, panel, column_stride, step_stride, steps, sums, sum_stride, more, 3); break;
#endif
        case 2: NAME(multiply)(rows, row_stride, panel, column_stride, step_stride, steps, sums, sum_stride, more, 2); break;
        default: NAME(multiply)(rows, row_stride, panel, column_stride, step_stride, steps, sums, sum_stride, more, 1); break;
        }
        panel += now * column_stride;
        sums += now * LANES;
        count -= now;
    }
}

/* A number, or two of them, as a unit: `second` is null past the end. */
INLINE uint32_t NAME(unit)(const void *first, const void *second, int dtype) {
    uint32_t unit;
#if PAIR == 2
    (void)dtype;
    unit = *(const uint16_t *)first | (second ? (uint32_t)*(const uint16_t *)second << 16 : 0);
#else
    (void)second;
    const float value = read_number(first, 0, dtype);
    memcpy(&unit, &value, 4);
#endif
    return unit;
}

/* Features of one token as units, `stride` apart. */
INLINE void NAME(units_of)(
    const void *row, int64_t features, int dtype, uint32_t *to, int64_t stride) {
    if (stride == 1 && dtype == (PAIR == 2 ? BFLOAT16 : FLOAT32) && features % PAIR == 0) {
        memcpy(to, row, (size_t)(features / PAIR) * 4);
        return;
    }
    for (int64_t i = 0, at = 0; i < features; i += PAIR, at += stride) {
        const void *next = i + 1 < features ? moved(row, i + 1, dtype) : NULL;
        to[at] = NAME(unit)(moved(row, i, dtype), next, dtype);
    }
}

/* Panels of one head's keys and values, of the vectors of keys from `start` to `stop`. */
TARGET static void NAME(lay_out)(const Attention *a, int64_t head, int64_t start, int64_t stop) {
    const int64_t batch_heads = a->heads_per_batch / a->heads_per_key;
    const int64_t all = a->first_head / a->heads_per_key + head;
    const int64_t batch = all / batch_heads, of_batch = all % batch_heads;
    const void *key = moved(a->key, batch * a->key_batch + of_batch * a->key_head, a->dtype);
    const void *value = moved(a->value, batch * a->value_batch + of_batch * a->value_head, a->dtype);
    const int64_t features = in_units(a->features, PAIR), vectors = in_units(a->keys, LANES);
    const int64_t wide = in_units(a->values, LANES) * LANES;
    uint32_t *keys = (uint32_t *)a->key_panels + head * vectors * LANES * features;
    uint32_t *values = (uint32_t *)a->value_panels + head * vectors * (LANES / PAIR) * wide;
    memset(keys + start * features * LANES, 0, (size_t)((stop - start) * features * LANES) * 4);
    for (int64_t at = start * LANES; at < stop * LANES && at < a->keys; at++)
        NAME(units_of)(moved(key, at * a->key_row, a->dtype), a->features, a->dtype,
            keys + at / LANES * features * LANES + at % LANES, LANES);
    for (int64_t at = start * LANES / PAIR; at < stop * LANES / PAIR; at++) {
        uint32_t *to = values + at * wide;
        const void *first = at * PAIR < a->keys ? moved(value, at * PAIR * a->value_row, a->dtype) : NULL;
        const void *second =
            at * PAIR + 1 < a->keys ? moved(value, (at * PAIR + 1) * a->value_row, a->dtype) : NULL;
        const int64_t count = first ? a->values : 0;
        for (int64_t i = 0; i < count; i++)
            to[i] = NAME(unit)(moved(first, i, a->dtype), second ? moved(second, i, a->dtype) : NULL, a->dtype);
        memset(to + count, 0, (size_t)(wide - count) * 4);
    }
}

/* One query's scores of a block of keys, of which `valid` count, become powers below the highest so
 * far; `begin` at the first block. */
INLINE TARGET void NAME(soften)(
    const Attention *a, const Room *room, int64_t row, int64_t tile_row, int64_t vectors,
    int64_t valid, int masked, int begin) {
    const int64_t stride = block_keys(a);
    float *scores = room->scores + tile_row * stride;
    uint32_t *to = room->probabilities + tile_row * stride / PAIR;
    /* In powers of two. */
    const Vector scale = SPREAD(a->scale * 1.44269504f);
    Vector most = SPREAD(-INFINITY);
    for (int64_t i = 0; i < vectors; i++) {
        Vector x = MUL(LOAD(scores + i * LANES), scale);
        if (masked) x = ADD(x, LOAD(room->added + i * LANES));
        STORE(scores + i * LANES, x);
        if ((i + 1) * LANES > valid) {
            for (int64_t at = valid > i * LANES ? valid : i * LANES; at < (i + 1) * LANES; at++)
                scores[at] = -INFINITY;
            x = LOAD(scores + i * LANES);
        }
        most = MAX(most, x);
    }
    const float before = room->highest[row], here = HIGHEST(most);
    const float highest = here > before ? here : before;
    /* Where no key is attended to so far, anything finite will do: all powers are 0. */
    const float from = highest == -INFINITY ? 0 : highest;
    const Vector low = SPREAD(from);
    Vector total = ZERO;
    for (int64_t i = 0; i < vectors; i++) {
        const Vector p = NAME(power)(SUB(LOAD(scores + i * LANES), low));
        total = ADD(total, p);
        STORE_UNITS(to, i * LANES, p);
    }
    room->highest[row] = highest;
    if (begin) {
        room->sum[row] = TOTAL(total);
        return;
    }
    float *out = room->out + row * in_units(a->values, LANES) * LANES;
    float less[LANES];
    STORE(less, NAME(power)(SPREAD(before - from)));
    room->sum[row] = room->sum[row] * less[0] + TOTAL(total);
    if (less[0] != 1)
        for (int64_t i = 0; i < a->values; i += LANES)
            STORE(out + i, MUL(LOAD(out + i), SPREAD(less[0])));
}

/* What the mask adds to a query's scores of a block, in powers of two. */
INLINE void NAME(add_mask)(const Attention *a, const char *mask, int64_t count, float *added) {
    const int64_t step = a->mask_column;
    switch (a->mask_kind) {
    case BOOL_MASK:
        for (int64_t i = 0; i < count; i++) added[i] = mask[i * step] ? 0 : -INFINITY;
        break;
    case FLOAT32_MASK:
        for (int64_t i = 0; i < count; i++) added[i] = ((const float *)(const void *)mask)[i * step] * 1.44269504f;
        break;
    default:
        for (int64_t i = 0; i < count; i++)
            added[i] = widen(((const uint16_t *)(const void *)mask)[i * step]) * 1.44269504f;
    }
}

/* The rows of a block of queries, from the sums that have come together. */
INLINE TARGET void NAME(finish)(const Attention *a, const Room *room, int64_t count, char *out) {
    const int64_t wide = in_units(a->values, LANES) * LANES;
    for (int64_t row = 0; row < count; row++) {
        const float *sums = room->out + row * wide;
        const float divisor = room->sum[row] == 0 ? 1 : room->sum[row];
        for (int64_t i = 0; i < a->values; i++) {
            const float value = sums[i] / divisor;
            if (a->dtype == FLOAT32) ((float *)(void *)out)[row * a->out_row + i] = value;
            else ((uint16_t *)(void *)out)[row * a->out_row + i] = narrow(value);
        }
    }
}

/* Queries `first` to `last`, of ROWS at most, of one head. */
TARGET static void NAME(attend)(
    const Attention *a, const Room *room, int64_t head, int64_t first, int64_t last) {
    const int64_t all = a->first_head + head;
    const int64_t batch = all / a->heads_per_batch, of_batch = all % a->heads_per_batch;
    const int64_t features = in_units(a->features, PAIR), vectors = in_units(a->keys, LANES);
    const int64_t wide = in_units(a->values, LANES), count = last - first, stride = block_keys(a);
    const int64_t size = a->mask_kind == BOOL_MASK ? 1 : a->mask_kind == FLOAT32_MASK ? 4 : 2;
    const uint32_t *keys =
        (const uint32_t *)a->key_panels + head / a->heads_per_key * vectors * LANES * features;
    const uint32_t *values = (const uint32_t *)a->value_panels +
                             head / a->heads_per_key * vectors * (LANES / PAIR) * wide * LANES;
    const void *query = moved(a->query, batch * a->query_batch + of_batch * a->query_head, a->dtype);
    const char *mask = a->mask_kind == NO_MASK ? NULL
        : (const char *)a->mask + (batch * a->mask_batch + of_batch * a->mask_head) * size;
    memset(room->query, 0, (size_t)(ROWS * features) * 4);
    for (int64_t row = 0; row < ROWS; row++) room->highest[row] = -INFINITY;
    for (int64_t row = 0; row < count; row++)
        NAME(units_of)(moved(query, (first + row) * a->query_row, a->dtype), a->features, a->dtype,
            room->query + row * features, 1);
    const int64_t seen = a->causal && last < a->keys ? last : a->keys;
    for (int64_t start = 0; start < seen; start += stride) {
        const int64_t length = seen - start < stride ? seen - start : stride;
        const int64_t here = in_units(length, LANES);
        if (mask && a->mask_row == 0)
            NAME(add_mask)(a, mask + start * a->mask_column * size, length, room->added);
        for (int64_t row = 0; row < count; row += TILE) {
            NAME(multiply_all)(room->query + row * features, features,
                keys + start * features, LANES * features, LANES, features, room->scores, stride, 0, here);
            for (int64_t r = 0; r < TILE; r++) {
                const int64_t at = first + row + r;
                if (mask && a->mask_row && at < last)
                    NAME(add_mask)(a, mask + (at * a->mask_row + start * a->mask_column) * size, length, room->added);
                const int64_t own = a->causal && at + 1 - start < length ? at + 1 - start : length;
                NAME(soften)(a, room, row + r, r, here, own, mask != NULL, start == 0);
            }
            NAME(multiply_all)(room->probabilities, stride / PAIR, values + start / PAIR * wide * LANES,
                LANES, wide * LANES, here * LANES / PAIR, room->out + row * wide * LANES, wide * LANES, start > 0, wide);
        }
    }
    char *out = (char *)moved(
        a->out, batch * a->out_batch + of_batch * a->out_head + first * a->out_row, a->dtype);
    NAME(finish)(a, room, count, out);
}

#undef INLINE
#undef STEPS
#undef NAME
#undef TARGET
#undef PAIR
#undef Units
#undef DOT
#undef LOAD_UNITS
#undef SPREAD_UNITS
#undef STORE_UNITS
