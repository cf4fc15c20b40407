/* Shares the rows of a tensor among threads.
 *
 * OpenMP's threads wait awake for a while after each of torch's operations: threads beside them
 * would compete for the cores. So these run, handed over as the function that starts them, which
 * spares this library any OpenMP of its own.
 */
#include "common.h"

#include <stdatomic.h>

/* A function that can be shared: `thread` counts those that share a call. */
typedef void (*Part)(const void *work, int64_t start, int64_t stop, int64_t thread);

/* GOMP_parallel: calls a function on as many threads, or fewer, and returns when all have. */
typedef void (*Parallel)(void (*call)(void *), void *given, unsigned threads, unsigned flags);

typedef struct {
    Part part;
    const void *work;
    int64_t count, grain, threads;
    _Atomic int64_t next, joined;
} Shared;

static void take_ranges(void *given) {
    Shared *shared = given;
    const int64_t thread = atomic_fetch_add_explicit(&shared->joined, 1, memory_order_relaxed);
    if (thread >= shared->threads) return;
    for (;;) {
        const int64_t start =
            atomic_fetch_add_explicit(&shared->next, shared->grain, memory_order_relaxed);
        if (start >= shared->count) return;
        const int64_t left = shared->count - start;
        const int64_t length = left < shared->grain ? left : shared->grain;
        shared->part(shared->work, start, start + length, thread);
    }
}

/* `part` on 0 to count, `grain` at a time, by whichever of `threads` threads is free. The whole team
 * is called even where fewer will do: GNU's OpenMP ends threads that a call leaves out, and starts
 * them anew for the next one that wants them. */
API void mz_share(
    Parallel parallel, int64_t team, Part part, const void *work, int64_t count, int64_t grain,
    int64_t threads) {
    Shared shared = {part, work, count, grain, threads, 0, 0};
    parallel(take_ranges, &shared, (unsigned)team, 0);
}
