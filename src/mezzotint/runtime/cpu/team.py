"""Several threads for one C function: torch's own where they can be had."""

from __future__ import annotations

import ctypes
import os
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache
from itertools import pairwise

import torch

from mezzotint.runtime.cpu.library import function

#: Fewer bytes than this are not worth a second thread.
_WORTH_A_THREAD = 1 << 18
#: Ranges per thread, so that one that is held up leaves its share to others.
_RANGES = 4


def threads_for(count: int, cost: int) -> int:
    """How many share `count` rows that cost as much as so many bytes to go through."""
    return max(1, min(torch.get_num_threads(), count, cost // _WORTH_A_THREAD))


def share(name: str, work: ctypes.Structure, count: int, threads: int, least: int = 1) -> None:
    """Call a C function on ranges of `count` rows, which together are all of them.

    Args:
        name: of the function.
        work: what the function works on; all that it points to must outlive this call.
        count: rows; none is too few.
        threads: how many take part; `work` has scratch for so many.
        least: rows of a range, where there are enough for all threads.
    """
    part = function(name)
    threads = min(threads, count)
    if threads <= 1:
        part(ctypes.byref(work), 0, count, 0)
        return
    # As many rows for every thread; in several ranges, so that one that is held up leaves its rest.
    ranges = threads * max(1, min(_RANGES, count // (threads * least)))
    grain = -(-count // ranges)
    starter = _starter()
    if starter is None:
        _on_a_pool(name, work, count, threads)
        return
    address = ctypes.cast(part, ctypes.c_void_p)
    team = max(threads, torch.get_num_threads())
    function("mz_share")(starter, team, address, ctypes.byref(work), count, grain, threads)


@cache
def _starter() -> ctypes.c_void_p | None:
    """OpenMP's function that runs another on torch's threads; None where there is none."""
    if os.getpid() != _PROCESS:
        # Threads do not survive a fork, and OpenMP would wait for those of its team for ever.
        return None
    try:
        # Whatever libraries loaded for all to see: torch does so with its OpenMP.
        return ctypes.cast(ctypes.CDLL(None).GOMP_parallel, ctypes.c_void_p)
    except (AttributeError, OSError, TypeError):
        return None


def _on_a_pool(name: str, work: ctypes.Structure, count: int, threads: int) -> None:
    part, address = function(name), ctypes.addressof(work)
    bounds = [count * index // threads for index in range(threads + 1)]
    started: list[Future[None]] = []
    try:
        for index, (start, stop) in enumerate(pairwise(bounds)):
            # ctypes lets go of the interpreter while C runs.
            started.append(_pool().submit(part, address, start, stop, index))
        for future in started:
            future.result()
    finally:
        # Whatever interrupts this, the tensors must not go while they are written to.
        wait(started)


@cache
def _pool() -> ThreadPoolExecutor:
    """Threads that are started as they are needed, and stay."""
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="mezzotint")


_PROCESS = os.getpid()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)
    os.register_at_fork(after_in_child=_starter.cache_clear)
