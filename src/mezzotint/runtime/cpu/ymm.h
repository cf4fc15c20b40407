/* Sums of sixteen outputs in two vectors of 256 bits; for units that have set TARGET. */
#ifndef MEZZOTINT_YMM_H
#define MEZZOTINT_YMM_H

#include "common.h"

#include <immintrin.h>

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

INLINE TARGET void load_bytes(Weights *weights, const int8_t *from) {
    weights->left = _mm256_loadu_si256((const __m256i *)from);
    weights->right = _mm256_loadu_si256((const __m256i *)from + 1);
}

INLINE TARGET Spread spread(const uint8_t *codes) {
    int32_t four;
    memcpy(&four, codes, sizeof four);
    return _mm256_set1_epi32(four);
}

/* Sums of 32 bits to their place; unless they are fresh, those that are there are added. */
INLINE TARGET void put_sums(int32_t *to, Sums sums, int fresh) {
    __m256i *place = (__m256i *)to;
    if (!fresh) {
        sums.left = _mm256_add_epi32(sums.left, _mm256_loadu_si256(place));
        sums.right = _mm256_add_epi32(sums.right, _mm256_loadu_si256(place + 1));
    }
    _mm256_storeu_si256(place, sums.left);
    _mm256_storeu_si256(place + 1, sums.right);
}

#endif
