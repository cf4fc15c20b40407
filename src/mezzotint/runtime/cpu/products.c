/* The units that multiply, and weights laid out for one of them. */
#include "layer.h"

#include <stddef.h>

const Unit *const units[] = {
#if HAS_AVX512
    &unit_avx512,
#endif
#if HAS_AVX_VNNI
    &unit_avx_vnni,
#endif
#if HAS_AVX2
    &unit_avx2,
#endif
#if HAS_NEON
    &unit_neon,
#endif
    NULL,
};

/* The name of a unit, by its number; empty where this processor lacks it, NULL past the last. */
API const char *mz_unit(int64_t unit) {
    const Unit *found = units[unit];
    return !found ? NULL : found->supported() ? found->name : "";
}

/* Weights of a width that a unit multiplies to one sum. */
API int64_t mz_together(int64_t unit, int64_t width) {
    return units[unit]->together((int32_t)width);
}

/* A weight to be laid out in panels; native.py has the same fields. */
typedef struct {
    const Segment *rows;
    int8_t *panels;
    int32_t *totals;
    uint8_t *scratch;      /* per thread lay_bytes() of the depth */
    int64_t channels, taps;
    int32_t unit;
} Panels;
SIZE_OF(Panels)

/* Panels start to stop, and the sums of their rows. */
API void mz_panels(const Panels *w, int64_t start, int64_t stop, int64_t thread) {
    const Unit *unit = units[w->unit];
    const int64_t depth = round_up(w->channels * w->taps, unit->together(w->rows->width));
    unit->lay(
        w->rows, w->channels, w->taps, start, stop, w->panels + start * PANEL * depth,
        w->totals + start * PANEL, w->scratch + thread * lay_bytes(depth));
}

/* Bytes of scratch that a thread needs to lay out a weight of that depth. */
API int64_t mz_lay_bytes(int64_t depth) {
    return lay_bytes(depth);
}

/* The version that library.py expects. */
API int64_t mz_version(void) {
    return 6;
}
