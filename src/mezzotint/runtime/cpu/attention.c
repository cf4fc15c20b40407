/* Attention without a matrix of all scores: by blocks of queries and keys, with a running maximum.
 *
 * Keys and values are laid out once in panels, so that a product loads full vectors. A query's
 * scores of a block of keys become powers of two below the highest so far; when a block has a higher
 * one, what was summed before is made smaller. A block of queries always sees the same blocks of
 * keys in the same order: the bits do not depend on who computes it.
 */
#include "attention.h"

#include <math.h>

SIZE_OF(Attention)

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define HAS_ATTENTION 1
#include <immintrin.h>

/* --- AVX2: eight floats --- */
__attribute__((target("avx2"))) static inline float highest_of_8(__m256 x) {
    __m128 y = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    y = _mm_max_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_max_ss(y, _mm_movehdup_ps(y)));
}

__attribute__((target("avx2"))) static inline float total_of_8(__m256 x) {
    __m128 y = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    y = _mm_add_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_add_ss(y, _mm_movehdup_ps(y)));
}

#define NAME(x) x##_avx2
#define TARGET __attribute__((target("avx2,fma")))
#define LANES 8
#define COLUMNS 2
#define PAIR 1
#define Vector __m256
#define Units __m256
#define ZERO _mm256_setzero_ps()
#define SPREAD(x) _mm256_set1_ps(x)
#define LOAD(p) _mm256_loadu_ps(p)
#define STORE(p, x) _mm256_storeu_ps(p, x)
#define ADD(x, y) _mm256_add_ps(x, y)
#define SUB(x, y) _mm256_sub_ps(x, y)
#define MUL(x, y) _mm256_mul_ps(x, y)
#define MAX(x, y) _mm256_max_ps(x, y)
#define FMA(x, y, z) _mm256_fmadd_ps(x, y, z)
#define HIGHEST(x) highest_of_8(x)
#define TOTAL(x) total_of_8(x)
#define ROUND(x) _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
/* The exponent's bits; of what is too small they are 0, which is the number 0. */
#define POWER(m, n) \
    _mm256_mul_ps(m, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32( \
        _mm256_cvtps_epi32(_mm256_max_ps(SPREAD(-127.0f), n)), _mm256_set1_epi32(127)), 23)))
#define DOT(s, u, v) _mm256_fmadd_ps(u, v, s)
#define LOAD_UNITS(p) _mm256_loadu_ps((const float *)(const void *)(p))
#define SPREAD_UNITS(u) _mm256_castsi256_ps(_mm256_set1_epi32((int32_t)(u)))
#define STORE_UNITS(to, at, x) _mm256_storeu_ps((float *)(void *)(to) + (at), x)
#include "attention_loops.h"
#undef LANES
#undef COLUMNS
#undef Vector
#undef ZERO
#undef SPREAD
#undef LOAD
#undef STORE
#undef ADD
#undef SUB
#undef MUL
#undef MAX
#undef FMA
#undef HIGHEST
#undef TOTAL
#undef ROUND
#undef POWER

/* --- AVX512: sixteen floats --- */
#define LANES 16
#define COLUMNS 4
#define Vector __m512
#define ZERO _mm512_setzero_ps()
#define SPREAD(x) _mm512_set1_ps(x)
#define LOAD(p) _mm512_loadu_ps(p)
#define STORE(p, x) _mm512_storeu_ps(p, x)
#define ADD(x, y) _mm512_add_ps(x, y)
#define SUB(x, y) _mm512_sub_ps(x, y)
#define MUL(x, y) _mm512_mul_ps(x, y)
#define MAX(x, y) _mm512_max_ps(x, y)
#define FMA(x, y, z) _mm512_fmadd_ps(x, y, z)
#define HIGHEST(x) _mm512_reduce_max_ps(x)
#define TOTAL(x) _mm512_reduce_add_ps(x)
#define ROUND(x) _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
#define POWER(m, n) _mm512_scalef_ps(m, n)

#define NAME(x) x##_avx512
#define TARGET __attribute__((target("avx512f")))
#define PAIR 1
#define Units __m512
#define DOT(s, u, v) _mm512_fmadd_ps(u, v, s)
#define LOAD_UNITS(p) _mm512_loadu_ps(p)
#define SPREAD_UNITS(u) _mm512_castsi512_ps(_mm512_set1_epi32((int32_t)(u)))
#define STORE_UNITS(to, at, x) _mm512_storeu_ps((to) + (at), x)
#include "attention_loops.h"

/* --- AVX512-BF16: sixteen sums of products of pairs --- */
#define NAME(x) x##_avx512_bf16
#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16")))
#define PAIR 2
#define Units __m512i
#define DOT(s, u, v) _mm512_dpbf16_ps(s, (__m512bh)(u), (__m512bh)(v))
#define LOAD_UNITS(p) _mm512_loadu_si512(p)
#define SPREAD_UNITS(u) _mm512_set1_epi32((int32_t)(u))
#define STORE_UNITS(to, at, x) \
    _mm256_storeu_si256((__m256i *)(void *)((uint16_t *)(void *)(to) + (at)), (__m256i)_mm512_cvtneps_pbh(x))
#include "attention_loops.h"
#else
#define HAS_ATTENTION 0
#endif

/* Which of the units this processor has: bits of AVX2, AVX512, AVX512_BF16. */
API int64_t mz_attention_units(void) {
    int64_t units = 0;
#if HAS_ATTENTION
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) units |= 1 << AVX2;
    if (__builtin_cpu_supports("avx512f")) units |= 1 << AVX512;
    if ((units & 1 << AVX512) && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bf16"))
        units |= 1 << AVX512_BF16;
#endif
    return units;
}

static int64_t lanes_of(const Attention *a) {
    return a->unit == AVX2 ? 8 : 16;
}

static int64_t pair_of(const Attention *a) {
    return a->unit == AVX512_BF16 ? 2 : 1;
}

/* The next `count` numbers of 32 bits; each place begins a line of the cache. */
static void *next(char *scratch, int64_t *used, int64_t count) {
    void *found = scratch + *used;
    *used += in_units(count * 4, 64) * 64;
    return found;
}

static int64_t make_room(const Attention *a, char *scratch, Room *room) {
    const int64_t keys = block_keys(a), lanes = lanes_of(a), pair = pair_of(a);
    int64_t used = 0;
    room->query = next(scratch, &used, ROWS * in_units(a->features, pair));
    room->scores = next(scratch, &used, TILE * keys);
    room->probabilities = next(scratch, &used, TILE * keys / pair);
    room->added = next(scratch, &used, keys);
    room->out = next(scratch, &used, ROWS * in_units(a->values, lanes) * lanes);
    room->highest = next(scratch, &used, ROWS);
    room->sum = next(scratch, &used, ROWS);
    return used;
}

/* Bytes: of one thread's scratch, of the panel of one head's keys, and of its values. */
API int64_t mz_attention_bytes(const Attention *a, int64_t of) {
    const int64_t lanes = lanes_of(a), pair = pair_of(a), vectors = in_units(a->keys, lanes);
    static char nowhere;
    Room room;
    switch (of) {
    case 0: return make_room(a, &nowhere, &room);
    case 1: return vectors * lanes * in_units(a->features, pair) * 4;
    default: return vectors * lanes / pair * in_units(a->values, lanes) * lanes * 4;
    }
}

/* Vectors of keys, and their values, `start` to `stop` of those of all heads. */
API void mz_attention_panels(const Attention *a, int64_t start, int64_t stop, int64_t thread) {
    (void)thread;
    const int64_t vectors = in_units(a->keys, lanes_of(a));
    while (start < stop) {
        const int64_t head = start / vectors, first = start % vectors;
        const int64_t last = stop - head * vectors < vectors ? stop - head * vectors : vectors;
#if HAS_ATTENTION
        if (a->unit == AVX2) lay_out_avx2(a, head, first, last);
        else if (a->unit == AVX512) lay_out_avx512(a, head, first, last);
        else lay_out_avx512_bf16(a, head, first, last);
#endif
        start += last - first;
    }
}

/* Blocks of queries `start` to `stop` of those of all heads. */
API void mz_attention(const Attention *a, int64_t start, int64_t stop, int64_t thread) {
    Room room;
    make_room(a, (char *)a->scratch + thread * mz_attention_bytes(a, 0), &room);
    const int64_t blocks = in_units(a->queries, ROWS);
    for (; start < stop; start++) {
        const int64_t head = start / blocks, first = start % blocks * ROWS;
        const int64_t last = first + ROWS < a->queries ? first + ROWS : a->queries;
#if HAS_ATTENTION
        if (a->unit == AVX2) attend_avx2(a, &room, head, first, last);
        else if (a->unit == AVX512) attend_avx512(a, &room, head, first, last);
        else attend_avx512_bf16(a, &room, head, first, last);
#else
        (void)head, (void)last;
#endif
    }
}
