/* Products by AVX-VNNI, 32 at a time: as exact as those of unit_avx512.c, of half as many bits. */
#include "layer.h"

#if HAS_AVX_VNNI
#include <immintrin.h>

#define UNIT unit_avx_vnni
#define NAME "AVX-VNNI"
#define TARGET __attribute__((target("avx2,avxvnni")))

enum { ROWS = 6, PANELS = 1, SIGNED_CODES = 0 };

typedef struct {
    __m256i left, right;
} Sums;
typedef Sums Weights;
typedef __m256i Spread;

/* Keeps the compiler from spreading all rows before it multiplies any, and spilling the sums. */
#define IN_ORDER(sums) __asm__ volatile("" : "+x"((sums)->left), "+x"((sums)->right))

INLINE TARGET void clear(Sums *sums) {
    sums->left = sums->right = _mm256_setzero_si256();
}

INLINE TARGET void load(Weights *weights, const int8_t *from, const int how) {
    (void)how;
    weights->left = _mm256_loadu_si256((const __m256i *)from);
    weights->right = _mm256_loadu_si256((const __m256i *)from + 1);
}

INLINE TARGET Spread spread(const uint8_t *codes) {
    int32_t four;
    memcpy(&four, codes, sizeof four);
    return _mm256_set1_epi32(four);
}

INLINE TARGET void add_products(Sums *sums, Spread codes, const Weights *weights, const int how) {
    (void)how;
    sums->left = _mm256_dpbusd_avx_epi32(sums->left, codes, weights->left);
    sums->right = _mm256_dpbusd_avx_epi32(sums->right, codes, weights->right);
    IN_ORDER(sums);
}

INLINE TARGET void put(int32_t *to, const Sums *sums, int fresh, const int how) {
    (void)how;
    __m256i left = sums->left, right = sums->right, *place = (__m256i *)to;
    if (!fresh) {
        left = _mm256_add_epi32(left, _mm256_loadu_si256(place));
        right = _mm256_add_epi32(right, _mm256_loadu_si256(place + 1));
    }
    _mm256_storeu_si256(place, left);
    _mm256_storeu_si256(place + 1, right);
}

static int supported(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("avxvnni");
}

#include "product_loops.h"
#endif
