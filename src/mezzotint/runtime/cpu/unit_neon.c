/* Products by NEON's dot products of signed integers, 16 at a time.
 *
 * `sdot` multiplies four signed bytes by four, and adds the products to a sum of 32 bits; nothing
 * saturates. Codes are taken less 128, which the sums of weights make good: unsigned by signed there are
 * dot products on fewer processors.
 */
#include "layer.h"

#if HAS_NEON
#if defined(EMULATE_NEON)
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/arm/neon.h>
#define TARGET
#else
#include <arm_neon.h>
#if defined(__ARM_FEATURE_DOTPROD)
#define TARGET
#else
#define TARGET __attribute__((target("arch=armv8.2-a+dotprod")))
#endif
#if defined(__linux__)
#include <sys/auxv.h>
#endif
#endif

#define UNIT unit_neon
#define NAME "NEON dot products"

enum { ROWS = 6, PANELS = 1, SIGNED_CODES = 1 };

typedef struct {
    int32x4_t part[4];
} Sums;
typedef struct {
    int8x16_t part[4];
} Weights;
typedef int8x16_t Spread;

INLINE TARGET void clear(Sums *sums) {
    for (int i = 0; i < 4; i++) sums->part[i] = vdupq_n_s32(0);
}

INLINE TARGET void load(Weights *weights, const int8_t *from, const int how) {
    (void)how;
    for (int i = 0; i < 4; i++) weights->part[i] = vld1q_s8(from + 16 * i);
}

INLINE TARGET Spread spread(const uint8_t *codes) {
    int32_t four;
    memcpy(&four, codes, sizeof four);
    return vreinterpretq_s8_s32(vdupq_n_s32(four));
}

INLINE TARGET void add_products(Sums *sums, Spread codes, const Weights *weights, const int how) {
    (void)how;
    for (int i = 0; i < 4; i++) sums->part[i] = vdotq_s32(sums->part[i], codes, weights->part[i]);
}

INLINE TARGET void put(int32_t *to, const Sums *sums, int fresh, const int how) {
    (void)how;
    for (int i = 0; i < 4; i++) {
        const int32x4_t before = fresh ? vdupq_n_s32(0) : vld1q_s32(to + 4 * i);
        vst1q_s32(to + 4 * i, vaddq_s32(before, sums->part[i]));
    }
}

static int supported(void) {
#if defined(EMULATE_NEON) || defined(__APPLE__) || defined(__ARM_FEATURE_DOTPROD)
    return 1;
#elif defined(__linux__) && defined(HWCAP_ASIMDDP)
    return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#else
    return 0;
#endif
}

#include "product_loops.h"
#endif
