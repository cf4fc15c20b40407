/* Products by AVX-VNNI, 32 at a time: as exact as those of unit_avx512.c, of half as many bits. */
#include "layer.h"

#if HAS_AVX_VNNI
#define UNIT unit_avx_vnni
#define NAME "AVX-VNNI"
#define TARGET __attribute__((target("avx2,avxvnni")))

enum { ROWS = 6, PANELS = 1, SIGNED_CODES = 0 };

#include "ymm.h"

INLINE TARGET void load(Weights *weights, const int8_t *from, const int how) {
    (void)how;
    load_bytes(weights, from);
}

INLINE TARGET void add_products(Sums *sums, Spread codes, const Weights *weights, const int how) {
    (void)how;
    sums->left = _mm256_dpbusd_avx_epi32(sums->left, codes, weights->left);
    sums->right = _mm256_dpbusd_avx_epi32(sums->right, codes, weights->right);
    IN_ORDER(sums);
}

INLINE TARGET void put(int32_t *to, const Sums *sums, int fresh, const int how) {
    (void)how;
    put_sums(to, *sums, fresh);
}

static int supported(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("avxvnni");
}

#include "product_loops.h"
#endif
