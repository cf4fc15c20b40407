/* What the C files share: how codes are stored, and how values are narrowed. */
#ifndef MEZZOTINT_COMMON_H
#define MEZZOTINT_COMMON_H

#include <stdint.h>
#include <string.h>

#if defined(_WIN32)
#define API __declspec(dllexport)
#else
#define API __attribute__((visibility("default")))
#endif

#define INLINE static inline __attribute__((always_inline))

/* One machine code per generation of processors; the loader picks. Named by what they can do: by
 * the name of one (arch=haswell) the loader would pick for that very processor only. */
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#if __GNUC__ >= 12
/* The last one narrows to bytes in whole vectors, too. */
#define MULTI __attribute__((target_clones("default", "avx2", "avx512f", "arch=x86-64-v4")))
#else
#define MULTI __attribute__((target_clones("default", "avx2", "avx512f")))
#endif
#else
#define MULTI
#endif

/* For a check that the Python part declares the same fields. */
#define SIZE_OF(type) \
    API int64_t mz_size_of_##type(void) { return (int64_t)sizeof(type); }

enum { SLOTS = 8, FLOAT32 = 0, BFLOAT16 = 1 };

static inline float widen(uint16_t bits) {
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, 4);
    return value;
}

/* Round half to even, as torch does; NaN stays NaN. */
static inline uint16_t narrow(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return (uint16_t)(value != value ? 0x7fc0 : rounded);
}

/* Of a packed row. */
static inline int64_t row_bytes(int64_t count, int bits) {
    return bits * ((count + SLOTS - 1) / SLOTS);
}

/* Codes of one row of bit planes, as packing.py lays them out. */
INLINE void unpack_row(
    const uint8_t *planes, int64_t count, int bits, uint8_t *codes) {
    const int64_t group = (count + SLOTS - 1) / SLOTS;
    const uint8_t mask = (uint8_t)((1u << bits) - 1);
    for (int slot = 0; slot < SLOTS; slot++) {
        const int64_t first = slot * group;
        const int64_t length = first >= count ? 0 : (count - first < group ? count - first : group);
        const int plane = slot * bits / 8, shift = slot * bits % 8;
        const uint8_t *low = planes + plane * group;
        uint8_t *out = codes + first;
        if (shift + bits <= 8) {
            for (int64_t i = 0; i < length; i++)
                out[i] = (uint8_t)((uint8_t)(low[i] >> shift) & mask);
        } else {
            const uint8_t *high = low + group;
            const int rest = 8 - shift;
            for (int64_t i = 0; i < length; i++)
                out[i] = (uint8_t)(((uint8_t)(low[i] >> shift) | (uint8_t)(high[i] << rest)) & mask);
        }
    }
}

#if defined(__GNUC__) && !defined(__clang__)
typedef uint8_t Bytes __attribute__((vector_size(16)));

/* Sixteen codes of up to six bits at a time: a shuffle for each sixteen levels. */
INLINE int64_t look_up_vectors(
    const uint8_t *book, uint8_t *codes, int64_t count, const int pages) {
    Bytes levels[4];
    memcpy(levels, book, (size_t)pages * sizeof(Bytes));
    int64_t i = 0;
    for (; i + 16 <= count; i += 16) {
        Bytes code;
        memcpy(&code, codes + i, sizeof code);
        Bytes found = __builtin_shuffle(levels[0], code & 15);
        for (int page = 1; page < pages; page++) {
            const Bytes here = (Bytes)(code >> 4 == (uint8_t)page);
            found = (found & ~here) | (__builtin_shuffle(levels[page], code & 15) & here);
        }
        memcpy(codes + i, &found, sizeof found);
    }
    return i;
}
#endif

/* Replace codes of `bits`, at most six, by their levels in a book. */
INLINE void look_up_row(
    const int8_t *book, int bits, uint8_t *codes, int64_t count) {
    uint8_t levels[64] = {0};
    memcpy(levels, book, (size_t)1 << bits);
    int64_t i = 0;
#if defined(__GNUC__) && !defined(__clang__)
    if (bits <= 4) i = look_up_vectors(levels, codes, count, 1);
    else if (bits == 5) i = look_up_vectors(levels, codes, count, 2);
    else i = look_up_vectors(levels, codes, count, 4);
#endif
    for (; i < count; i++) codes[i] = levels[codes[i]];
}

#endif
