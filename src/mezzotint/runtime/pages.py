"""Memory that nobody needs, given back to the system before its owner would."""

from __future__ import annotations

import ctypes
import mmap
import sys
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

#: Linux: write back what is the process's own, then let go of the pages; they can be read anew.
_MADV_PAGEOUT = 21
#: Linux: let go of the pages; those of a file are read anew.
_MADV_DONTNEED = 4
#: Less is not worth looking up where it is.
_WORTH_IT = 1 << 16
#: Where its heap has no stretch as long, glibc maps blocks of this size apart instead of making the
#: heap longer: it is the most that M_MMAP_THRESHOLD grows to by itself.
_APART = 32 << 20


def give_back(tensor: Tensor) -> None:
    """Let the system have the pages of a tensor that was read from a mapped file, for now.

    Checkpoints are mapped as a whole, and stay so as long as one of their tensors lives. Values do
    not change: whoever still reads the tensor has its pages read again. Only on Linux.
    """
    if sys.platform != "linux" or tensor.device.type != "cpu" or tensor.nbytes < _WORTH_IT:
        return
    start, stop = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
    if not tensor.is_contiguous() or not _mapped(start, stop):
        return
    _advise(start, stop, _MADV_PAGEOUT)


def give_back_file(path: Path) -> None:
    """Let the system have the pages of a file that this process has mapped to read, for now.

    The file stays in the system's own cache: another look at it costs no reading. Only on Linux.
    """
    if sys.platform != "linux":
        return
    named = str(path.resolve())
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, rights, *_, name = line.split(maxsplit=5)
        if name == named and "w" not in rights:
            start, stop = (int(each, 16) for each in addresses.split("-"))
            _advise(start, stop, _MADV_DONTNEED)


def _advise(start: int, stop: int, advice: int) -> None:
    """Advise the system about the whole pages between two addresses."""
    first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
    length = stop // mmap.PAGESIZE * mmap.PAGESIZE - first
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    madvise(first, length, advice)  # advice: whether it was taken makes no difference


def make_room(size: int) -> None:
    """Let the system have what was freed, before a block of `size` bytes is taken.

    glibc keeps freed memory for later, between live blocks and behind them. A large block seldom
    fits in there and is mapped beside it: where a call's memory peaks, both would be held.
    """
    if size < _APART:
        return
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> Any:
    """The function of glibc; None with another C library."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim.argtypes = (ctypes.c_size_t,)
    return trim


def _mapped(start: int, stop: int) -> bool:
    """Return whether all of a range is a single file's."""
    for line in Path("/proc/self/maps").read_text("utf-8").splitlines():
        addresses, _, _, _, inode, *_ = line.split(maxsplit=5)
        low, high = (int(bound, 16) for bound in addresses.split("-"))
        if low <= start < high:
            return stop <= high and inode != "0"
    return False
