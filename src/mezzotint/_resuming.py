"""A folder that is written in pieces: complete or absent, and resumable in between."""

from __future__ import annotations

import glob
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from mezzotint._files import check_no_file, remove_remains
from mezzotint._folders import move_into_place, put_back, state_of
from mezzotint._locks import only_here
from mezzotint.errors import MezzotintError


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
        UsageError: another process is at work on `path`, or has written there since this began.
    """
    with ExitStack() as held:
        try:
            check_no_file(path)
            held.enter_context(only_here(path, again=True))
        except OSError as cause:
            raise _cannot_be_written(path, cause, error) from cause
        with _resumable(path, job, error, pieces) as temporary:
            yield temporary


@contextmanager
def _resumable(path: Path, job: str, error: type[MezzotintError], pieces: str) -> Iterator[Path]:
    """The same, in a process that holds `path`."""
    temporary = path.with_name(f".{path.name}.partial-{job}")
    try:
        put_back(path)
        before = state_of(path)
        temporary.mkdir(exist_ok=True)
        remove_remains(temporary)
        yield temporary
        move_into_place(temporary, path, before)
    except MezzotintError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    except OSError as cause:
        raise _cannot_be_written(path, cause, error, _kept(temporary, pieces)) from cause
    except KeyboardInterrupt as interruption:
        if _kept(temporary, pieces):
            interruption.add_note(f"finished {pieces} are kept in {temporary}")
            interruption.add_note("repeat the command to go on")
        raise
    for other in path.parent.glob(f".{glob.escape(path.name)}.partial-*"):
        shutil.rmtree(other, ignore_errors=True)


def _cannot_be_written(
    path: Path, cause: OSError, error: type[MezzotintError], kept: str = ""
) -> MezzotintError:
    # Where many files cannot be copied, the first will do.
    several = isinstance(cause, shutil.Error) and cause.args and isinstance(cause.args[0], list)
    reason = str(cause.args[0][0][-1]) if several else cause.strerror or str(cause)
    return error(
        f"{path}: cannot be written ({reason}); make room, or name a folder elsewhere{kept}"
    )


def _kept(temporary: Path, pieces: str) -> str:
    """Half a sentence on what is kept; a folder without any finished piece is removed."""
    if not any(temporary.rglob("[!.]*.safetensors")):
        shutil.rmtree(temporary, ignore_errors=True)
        return ""
    return f"; finished {pieces} are kept in {temporary}, and the same command goes on from there"
