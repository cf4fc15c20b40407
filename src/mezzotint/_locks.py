"""Keeping other processes from a file or folder while this one works on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from mezzotint._files import making_folders
from mezzotint.errors import UsageError

_PATIENCE = 120.0
"""Seconds after which nobody waits any longer: a process that is stopped keeps its locks."""


@contextmanager
def one_at_a_time(path: Path, patience: float = _PATIENCE) -> Iterator[bool]:
    """Have other processes wait that do the same for a file of the cache, as far as that goes.

    Without a place for a lock, or when patience ends, the work is done all the same: False then.

    Args:
        path: the file; the lock stands beside it, and stays.
        patience: seconds to wait for others.
    """
    lock = FileLock(path.with_name(f"{path.name}.lock"), timeout=patience)
    # Some file systems know no locks.
    with suppress(OSError, NotImplementedError):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        yield lock.is_locked
    finally:
        lock.release()


@contextmanager
def only_here(path: Path, *, again: bool = False) -> Iterator[None]:
    """Hold `path`, which need not exist, against all other work, of any process or thread.

    The lock is a hidden file beside it, which goes when it is released; the system releases that of
    a process that dies.

    Args:
        path: absolute, or relative to the working folder. Folders that it will stand in are made,
            and go again where nothing is put into them.
        again: go on where this very thread holds it already.

    Raises:
        UsageError: it is held.
        OSError: the lock cannot be written.
    """
    path = path.absolute()
    place = path.with_name(f".{path.name}.lock")
    with making_folders(place.parent):
        lock = FileLock(place, timeout=0, is_singleton=True)
        outermost = not lock.is_locked
        try:
            if not (outermost or again):
                raise Timeout(str(place))
            lock.acquire()
        except Timeout as cause:
            raise UsageError(
                f"{path}: another process is at work on it; wait for that, or name another place"
            ) from cause
        try:
            yield
        finally:
            if outermost:
                # Before the release: who has opened this file meanwhile finds it gone, and tries
                # anew. Windows keeps files that are open, and the release removes it there.
                with suppress(OSError):
                    place.unlink()
            lock.release()
