/* Products by AVX512-VNNI, 64 at a time.
 *
 * `vpdpbusd` multiplies four unsigned codes by four signed weights, and adds the four products to a sum
 * of 32 bits. Each is at most 255 * 128 in magnitude and exact in 16 bits; they are extended to 32 before
 * they are added, so that a step adds at most 4 * 255 * 128, and nothing saturates on the way. (It is
 * `vpdpbusds` that saturates.) Whole sums stay within 32 bits, as Python refuses layers of more than
 * MAX_COLUMNS weights an output (int8.py).
 */
#include "layer.h"

#if HAS_AVX512
#include <immintrin.h>

#define UNIT unit_avx512
#define NAME "AVX512-VNNI"
#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni")))

enum { ROWS = 6, PANELS = 4, SIGNED_CODES = 0 };

typedef struct {
    __m512i all;
} Sums;
typedef Sums Weights;
typedef __m512i Spread;

/* Keeps the compiler from moving sums from register to register, and spilling them. */
#define IN_ORDER(sums) __asm__ volatile("" : "+v"((sums)->all))

INLINE TARGET void clear(Sums *sums) {
    sums->all = _mm512_setzero_si512();
}

INLINE TARGET void load(Weights *weights, const int8_t *from, const int how) {
    (void)how;
    weights->all = _mm512_loadu_si512(from);
}

INLINE TARGET Spread spread(const uint8_t *codes) {
    int32_t four;
    memcpy(&four, codes, sizeof four);
    return _mm512_set1_epi32(four);
}

INLINE TARGET void add_products(Sums *sums, Spread codes, const Weights *weights, const int how) {
    (void)how;
    sums->all = _mm512_dpbusd_epi32(sums->all, codes, weights->all);
    IN_ORDER(sums);
}

INLINE TARGET void put(int32_t *to, const Sums *sums, int fresh, const int how) {
    (void)how;
    __m512i all = sums->all;
    if (!fresh) all = _mm512_add_epi32(all, _mm512_loadu_si512(to));
    _mm512_storeu_si512(to, all);
}

static int supported(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
}

#include "product_loops.h"
#endif
