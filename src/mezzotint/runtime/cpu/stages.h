/* Work in stages that several threads share: none begins a stage before the last one is done. */
#ifndef MEZZOTINT_STAGES_H
#define MEZZOTINT_STAGES_H

#include "common.h"

#include <stdatomic.h>
#if defined(__unix__) || defined(__APPLE__)
#include <sched.h>
#endif

/* How many parts of a stage are taken, and how many are done. */
typedef struct {
    _Atomic int64_t taken, done;
} Stage;

/* The next part of `count` that nobody has taken; -1 where there is none. */
static inline int64_t take_part(Stage *stage, int64_t count) {
    const int64_t part = atomic_fetch_add_explicit(&stage->taken, 1, memory_order_relaxed);
    return part < count ? part : -1;
}

static inline void part_done(Stage *stage) {
    atomic_fetch_add_explicit(&stage->done, 1, memory_order_release);
}

/* Wait for those that have taken a part. They compute, so it is not for long; but where threads are
 * more than cores, they may be waiting for ours. */
static inline void wait_for(Stage *stage, int64_t count) {
    for (int turns = 0; atomic_load_explicit(&stage->done, memory_order_acquire) < count; turns++) {
#if defined(__unix__) || defined(__APPLE__)
        if (turns > 1000) sched_yield();
#endif
#if defined(__x86_64__)
        __asm__ volatile("pause");
#endif
    }
}

#endif
