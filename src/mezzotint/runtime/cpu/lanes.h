/* Sums of doubles in lanes, in the order of `lane_sums` in formats/clip_errors.py: lane i adds every
 * LANES-th value from i on, then the lanes are folded in half until one is left. */
#ifndef MEZZOTINT_LANES_H
#define MEZZOTINT_LANES_H

enum { LANES = 256 };

/* Of constant length, so that it is unrolled. */
INLINE void fold(double *sums, const int half) {
    for (int i = 0; i < half; i++) sums[i] += sums[half + i];
}

/* The sum of as many lanes, a power of two from 32 to LANES. */
INLINE double folded(double *sums, const int lanes) {
    if (lanes > 128) fold(sums, 128);
    if (lanes > 64) fold(sums, 64);
    if (lanes > 32) fold(sums, 32);
    fold(sums, 16);
    fold(sums, 8);
    fold(sums, 4);
    fold(sums, 2);
    return sums[0] + sums[1];
}

#endif
