"""Keeping other processes from a file or folder while this one works on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from mezzotint._files import making_folders
from mezzotint.errors import UsageError


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
