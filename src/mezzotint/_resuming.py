"""A folder that is written in pieces: complete or absent, and resumable in between."""

from __future__ import annotations

import glob
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mezzotint._files import check_folder_name, move_into_place
from mezzotint.errors import MezzotintError, UsageError

_LOCK = ".lock"


def digest(job: Mapping[str, Any]) -> str:
    """Short name of a job, from everything that decides what it writes (JSON values)."""
    text = json.dumps(job, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextmanager
def resumable_folder(
    path: Path, job: str, *, error: type[MezzotintError], pieces: str
) -> Iterator[Path]:
    """Yield a hidden folder beside `path` that becomes `path` if the block succeeds.

    It is named after `path` and the `job` (see `digest`), so that the same job finds its files
    again after a kill, and another never does. Bad input removes it: the same job would fail the
    same way. A full disk or an interruption leaves it, where it holds anything.

    Args:
        path: the folder.
        job: see `digest`.
        error: raised where it cannot be written.
        pieces: the safetensors files that are written one by one, in the plural, for messages.

    Raises:
        MezzotintError: `error`: something cannot be written.
        UsageError: another process is at the same job.
    """
    temporary = path.with_name(f".{path.name}.partial-{job}")
    try:
        check_folder_name(path)
        temporary.mkdir(exist_ok=True)
        with _lock(temporary):
            yield temporary
        (temporary / _LOCK).unlink(missing_ok=True)
        move_into_place(temporary, path)
    except Timeout as cause:
        raise UsageError(
            f"{path}: another process writes the same there; wait for it, or name another folder"
        ) from cause
    except MezzotintError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    except OSError as cause:
        kept = _kept(temporary, pieces)
        # Of many files that cannot be copied the first will do.
        several = isinstance(cause, shutil.Error) and cause.args and isinstance(cause.args[0], list)
        reason = str(cause.args[0][0][-1]) if several else cause.strerror or str(cause)
        raise error(
            f"{path}: cannot be written ({reason}); make room, or name a folder elsewhere{kept}"
        ) from cause
    except KeyboardInterrupt as interruption:
        if _kept(temporary, pieces):
            interruption.add_note(f"finished {pieces} are kept in {temporary}")
            interruption.add_note("repeat the command to go on")
        raise
    for other in path.parent.glob(f".{glob.escape(path.name)}.partial-*"):
        with suppress(Timeout), _lock(other):
            shutil.rmtree(other, ignore_errors=True)


def _lock(folder: Path) -> FileLock:
    """Held by the process that writes into `folder`; Timeout where another one holds it."""
    return FileLock(folder / _LOCK, timeout=0)


def _kept(temporary: Path, pieces: str) -> str:
    """Half a sentence on what is kept; a folder without any finished piece is removed."""
    if not any(temporary.rglob("[!.]*.safetensors")):
        shutil.rmtree(temporary, ignore_errors=True)
        return ""
    return f"; finished {pieces} are kept in {temporary}, and the same command goes on from there"
