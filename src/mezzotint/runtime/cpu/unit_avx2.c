/* Products by AVX2, which adds products of two 8-bit integers in pairs, in 16 bits.
 *
 * Up to seven bits of weight that is exact: 2 * 255 * 64 is below 2^15. Up to four, so many pairs fit
 * that they are added in 16 bits, too, and seldom widened. Weights of eight bits would saturate: they and
 * the codes are multiplied in 16 bits instead, two products to a sum of 32.
 */
#include "layer.h"

#if HAS_AVX2
#include <immintrin.h>

#define UNIT unit_avx2
#define NAME "AVX2"
#define TARGET __attribute__((target("avx2")))

enum { ROWS = 6, PANELS = 1, SIGNED_CODES = 0 };
/* Weights of eight bits multiply codes of 16. */
#define WIDENS_CODES 1

/* In 32 bits; or, while many pairs are added, in 16. */
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
    if (how == IN_16_BITS) {
        weights->left = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)from));
        weights->right = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)from + 1));
    } else {
        weights->left = _mm256_loadu_si256((const __m256i *)from);
        weights->right = _mm256_loadu_si256((const __m256i *)from + 1);
    }
}

INLINE TARGET Spread spread(const uint8_t *codes) {
    int32_t four;
    memcpy(&four, codes, sizeof four);
    return _mm256_set1_epi32(four);
}

INLINE TARGET void add_products(Sums *sums, Spread codes, const Weights *weights, const int how) {
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i left, right;
    if (how == IN_16_BITS) {
        left = _mm256_madd_epi16(codes, weights->left);
        right = _mm256_madd_epi16(codes, weights->right);
    } else {
        left = _mm256_maddubs_epi16(codes, weights->left);
        right = _mm256_maddubs_epi16(codes, weights->right);
        if (how == IN_MANY_PAIRS) {
            sums->left = _mm256_add_epi16(sums->left, left);
            sums->right = _mm256_add_epi16(sums->right, right);
            IN_ORDER(sums);
            return;
        }
        left = _mm256_madd_epi16(left, ones);
        right = _mm256_madd_epi16(right, ones);
    }
    sums->left = _mm256_add_epi32(sums->left, left);
    sums->right = _mm256_add_epi32(sums->right, right);
    IN_ORDER(sums);
}

INLINE TARGET void put(int32_t *to, const Sums *sums, int fresh, const int how) {
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i left = sums->left, right = sums->right, *place = (__m256i *)to;
    if (how == IN_MANY_PAIRS) {
        left = _mm256_madd_epi16(left, ones);
        right = _mm256_madd_epi16(right, ones);
    }
    if (!fresh) {
        left = _mm256_add_epi32(left, _mm256_loadu_si256(place));
        right = _mm256_add_epi32(right, _mm256_loadu_si256(place + 1));
    }
    _mm256_storeu_si256(place, left);
    _mm256_storeu_si256(place + 1, right);
}

static int supported(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") != 0;
}

#include "product_loops.h"
#endif
