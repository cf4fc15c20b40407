"""Keeping a C library's stray lines out of standard output."""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_STDOUT = 1
_LINE = b"HighsMipSolverData::"  # printed, whatever its options, by the HiGHS in SciPy 1.17
_lock = Lock()


@contextmanager
def quiet() -> Iterator[None]:
    """Withhold HiGHS' unconditional debug lines, which would end up in what a program prints.

    They come from C, so the file descriptor is diverted, not `sys.stdout`; anything else written
    meanwhile, say by another thread, is passed on at the end.
    """
    with _lock, tempfile.TemporaryFile() as diverted:
        try:
            stdout = os.dup(_STDOUT)
        except OSError:  # no standard output to keep clean
            yield
            return
        _flush()
        os.dup2(diverted.fileno(), _STDOUT)
        try:
            yield
        finally:
            _flush()
            os.dup2(stdout, _STDOUT)
            os.close(stdout)
            diverted.seek(0)
            for line in diverted:
                if not line.startswith(_LINE):
                    os.write(_STDOUT, line)


def _flush() -> None:
    """Empty the buffers of C's streams, so that lines land where they were meant to."""
    ctypes.CDLL("ucrtbase" if os.name == "nt" else None).fflush(None)
