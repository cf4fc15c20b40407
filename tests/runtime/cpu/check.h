/* Random numbers and memory of the checks. */
#ifndef MEZZOTINT_CHECK_H
#define MEZZOTINT_CHECK_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

extern uint64_t state;

static inline int64_t pick(int64_t low, int64_t high) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return low + (int64_t)(state % (uint64_t)(high - low + 1));
}

static inline void *room(int64_t bytes) {
    void *found = malloc(bytes ? (size_t)bytes : 1);
    if (!found) exit(2);
    return found;
}

/* Status 1 if an output of attention is wrong. */
int check_attention(int cases);

#endif
