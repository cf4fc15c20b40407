"""Files and folders that survive a power cut, and two of them that change places at once."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

_AT_FDCWD = -100
"""The number of linux/fcntl.h by which paths are relative to the working folder."""

_RENAME_EXCHANGE = 2
"""The flag of linux/fs.h."""

_NOT_THERE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)
"""Errors of a kernel, or a file system, that cannot exchange."""

_THREADS = 8
"""Files that are synced at a time: a disk takes many as soon as one."""

EXCHANGE_EVENT = "os.exchange"
"""Audit event before two paths change places: neither ctypes nor the system raises one."""


def sync_file(path: Path) -> None:
    """Have the content of a file on disk before this returns."""
    # Windows syncs what is open for writing alone; elsewhere files may be read only.
    with path.open("r+b" if sys.platform == "win32" else "rb") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Have the names in a folder on disk before this returns; Windows does so by itself."""
    if sys.platform == "win32":
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Have all that is in a folder on disk before this returns: contents first, then names."""
    files, folders = [], []
    for here, _, names in os.walk(folder):
        folders.append(Path(here))
        files += [Path(here, name) for name in names if Path(here, name).is_file()]
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(sync_file, files))
        list(pool.map(sync_folder, folders))


def exchange(left: Path, right: Path) -> bool:
    """Have two paths on one disk change places in one step, be they files or folders.

    Returns:
        False where the system (anything but Linux) or the file system cannot: nothing is changed.

    Raises:
        OSError: it can, and did not.
    """
    function = _renameat2()
    if function is None:
        return False
    sys.audit(EXCHANGE_EVENT, left, right)
    paths = os.fsencode(left), os.fsencode(right)
    if function(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NOT_THERE:
        return False
    raise OSError(code, os.strerror(code), str(right))


@cache
def _renameat2() -> Any:
    """The C library's function; None where there is none."""
    if sys.platform != "linux":
        return None
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is not None:
        function.argtypes = (
            ctypes.c_int,
            ctypes.c_char_p,
            ctypes.c_int,
            ctypes.c_char_p,
            ctypes.c_uint,
        )
        function.restype = ctypes.c_int
    return function
