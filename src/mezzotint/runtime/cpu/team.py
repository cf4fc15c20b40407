"""Several threads for one C function: torch's own where they can be had."""

from __future__ import annotations

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache

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
    """Call a C function on ranges of `count` rows; but for the last of multiples of `least`."""
    part = function(name)
    if threads <= 1:
        part(ctypes.byref(work), 0, count, 0)
        return
    grain = -(-count // (threads * _RANGES * least)) * least
    if -(-count // grain) < threads:
        grain = -(-count // threads)
    starter = _starter()
    if starter is None:
        _on_a_pool(name, work, count, threads)
    else:
        address = ctypes.cast(part, ctypes.c_void_p)
        function("mz_share")(starter, address, ctypes.byref(work), count, grain, threads)


@cache
def _starter() -> ctypes.c_void_p | None:
    """The function that runs another on torch's threads; None where torch has not GNU's OpenMP."""
    if _FORKED:
        return None
    try:
        # Whatever libraries loaded for all to see: torch does so with its OpenMP.
        return ctypes.cast(ctypes.CDLL(None).GOMP_parallel, ctypes.c_void_p)
    except (AttributeError, OSError, TypeError):
        return None


def _on_a_pool(name: str, work: ctypes.Structure, count: int, threads: int) -> None:
    part, address = function(name), ctypes.addressof(work)
    bounds = [count * index // threads for index in range(threads + 1)]
    # ctypes lets go of the interpreter while C runs.
    list(_pool().map(part, [address] * threads, bounds[:-1], bounds[1:], range(threads)))


@cache
def _pool() -> ThreadPoolExecutor:
    """Threads that are started as they are needed, and stay."""
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="mezzotint")


def _start_anew() -> None:
    """Threads do not survive a fork, and OpenMP would wait for those of its team for ever."""
    _FORKED.append(True)
    _pool.cache_clear()
    _starter.cache_clear()


#: Holds something in a process that was forked.
_FORKED: list[bool] = []

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)
