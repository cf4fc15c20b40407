"""Errors of other libraries which say that the machine has no more memory, or room on its disk."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from traceback import walk_tb

_MEMORY = (
    "can't allocate memory",
    "cannot allocate memory",
    "unable to allocate",
    "failed to allocate",
    "not enough memory",
    "out of memory",
    "bad_alloc",
    "can't start new thread",
    "failed to map segment",
)
"""Words of torch, numpy, safetensors, the loader of libraries and the C library."""

_AGAIN = "resource temporarily unavailable"
"""Words of the C library: of a process or thread that cannot be begun, but of locks as well."""

_BEGINNING = ("subprocess", "multiprocessing", "concurrent", "threading")
"""Modules that begin processes and threads."""

_DISK = ("no space left", "disk quota exceeded", "file too large")

_DISK_CODES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def scarcity(error: BaseException) -> str | None:
    """A sentence with the remedy, where an error or one that it comes from means scarcity."""
    for each in _origins(error):
        text = str(each).lower()
        code = each.errno if isinstance(each, OSError) else None
        memory = isinstance(each, MemoryError) or code == errno.ENOMEM or _any(_MEMORY, text)
        if memory or (_AGAIN in text and _of_a_beginning(each)):
            return (
                "out of memory; close other programs, or use fewer prompts, smaller batches or "
                f"fewer workers ({_shown(each)})"
            )
        if code in _DISK_CODES or _any(_DISK, text):
            return f"the disk is full; make room, and repeat the command ({_shown(each)})"
    return None


def _of_a_beginning(error: BaseException) -> bool:
    """True where a process or a thread could not be begun; False of a file that another holds.

    Other libraries' errors come from threads. The system's own say in which module they arose.
    """
    if not isinstance(error, OSError):
        return True
    modules = [frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__)]
    return bool(modules) and modules[-1].partition(".")[0] in _BEGINNING


def _any(words: tuple[str, ...], text: str) -> bool:
    return any(each in text for each in words)


def _shown(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _origins(error: BaseException) -> Iterator[BaseException]:
    """The error, and those that it comes from."""
    seen: list[BaseException] = []
    found: BaseException | None = error
    while found is not None and found not in seen:
        seen.append(found)
        yield found
        found = found.__cause__ or found.__context__
