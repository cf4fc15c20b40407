"""The compiled C functions, where the package was built with them for this platform.

`share` calls one on several threads: torch's own where they can be had.
"""

from __future__ import annotations

import ctypes
import os
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

#: The version of the functions and structures; products.c has the same. Others are not used.
VERSION = 6
#: Set to 0, mezzotint does without its C functions.
SWITCH = "MEZZOTINT_NATIVE"

#: A pointer to the work, the range that one call does of it, and the number of its thread.
_PART = (ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
_PARTS = (
    "mz_unpack", "mz_dequantize", "mz_look_up", "mz_peaks", "mz_quantize", "mz_quantize_pixels",
    "mz_rescale", "mz_panels", "mz_layer_part", "mz_clip_errors", "mz_bin_totals",
    "mz_level_products", "mz_level_steps", "mz_paths", "mz_nearest_levels",
    "mz_attention_panels", "mz_attention",
)  # fmt: skip


@cache
def library() -> ctypes.CDLL | None:
    """The compiled library beside this file, if there is one for this platform."""
    if os.environ.get(SWITCH) == "0":
        return None
    for path in sorted(Path(__file__).parent.glob("_kernels.*")):
        try:
            return _declared(ctypes.CDLL(str(path)))
        except (OSError, AttributeError):
            # It is of another platform, or of another version of this file.
            continue
    return None


def build() -> str:
    """Digits that no other build of the library has, or `none` where there is none."""
    found = library()
    return "none" if found is None else sha256(Path(found._name).read_bytes()).hexdigest()[:12]


@cache
def function(name: str) -> Any:
    """One of the functions; ask whether there is a library first."""
    found = library()
    assert found is not None, "there is no library"
    return getattr(found, name)


def fields(**names: str) -> list[tuple[str, Any]]:
    """Fields of a structure: names in the order of the C file, under the type they have in common.

    `fields(pointers="packed out", longs="count")` are two pointers and an int64.
    """
    types = {
        "pointers": ctypes.c_void_p,
        "longs": ctypes.c_int64,
        "ints": ctypes.c_int32,
        "floats": ctypes.c_float,
    }
    return [(name, types[kind]) for kind, group in names.items() for name in group.split()]


def _declared(found: ctypes.CDLL) -> ctypes.CDLL:
    for name in _PARTS:
        part = getattr(found, name)
        part.argtypes, part.restype = _PART, None
    found.mz_share.argtypes = (
        ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 3,
    )  # fmt: skip
    found.mz_share.restype = None
    found.mz_attention_units.argtypes, found.mz_attention_units.restype = (), ctypes.c_int64
    found.mz_attention_bytes.argtypes = (ctypes.c_void_p, ctypes.c_int64)
    found.mz_attention_bytes.restype = ctypes.c_int64
    found.mz_layer.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
    found.mz_layer.restype = found.mz_layer_begin.restype = None
    found.mz_layer_begin.argtypes = found.mz_layer_bytes.argtypes = (ctypes.c_void_p,)
    found.mz_unit.argtypes, found.mz_unit.restype = (ctypes.c_int64,), ctypes.c_char_p
    found.mz_together.argtypes = (ctypes.c_int64, ctypes.c_int64)
    found.mz_lay_bytes.argtypes, found.mz_version.argtypes = (ctypes.c_int64,), ()
    for name in ("mz_version", "mz_layer_bytes", "mz_together", "mz_lay_bytes"):
        getattr(found, name).restype = ctypes.c_int64
    if found.mz_version() != VERSION:
        raise OSError("built of another version's sources")
    return found


#: Fewer bytes than this are not worth a second thread.
_WORTH_A_THREAD = 1 << 18
#: Ranges per thread, so that one that is held up leaves its share to others.
_RANGES = 4


def threads_for(count: int, cost: int) -> int:
    """The number of threads for `count` rows that cost as much as `cost` bytes to go through."""
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
    # Equal shares of rows, in several ranges each: a thread that is held up leaves its rest.
    ranges = threads * max(1, min(_RANGES, count // (threads * least)))
    grain = -(-count // ranges)
    starter = _starter()
    if starter is None:
        _on_a_pool(name, ctypes.addressof(work), count, threads)
        return
    address = ctypes.cast(part, ctypes.c_void_p)
    team = max(threads, torch.get_num_threads())
    function("mz_share")(starter, team, address, ctypes.byref(work), count, grain, threads)


def run_layer(call: int, threads: int) -> None:
    """Call the function that computes a layer, on so many threads.

    Args:
        call: the address of a structure `Call`; all that it points to must outlive this call.
        threads: for which it has scratch.
    """
    starter = None if threads == 1 else _starter()
    if threads == 1 or starter is not None:
        team = max(threads, torch.get_num_threads())
        function("mz_layer")(call, starter, team)
        return
    function("mz_layer_begin")(call)
    _on_a_pool("mz_layer_part", call, threads, threads)


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


def _on_a_pool(name: str, address: int, count: int, threads: int) -> None:
    part = function(name)
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
