"""A folder that is written in pieces: complete or absent, and resumable in between."""

from __future__ import annotations

import glob
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mezzotint._files import check_folder_name, move_into_place
from mezzotint.errors import CheckpointError, MezzotintError


def digest(job: Mapping[str, Any]) -> str:
    """Short name of a job, from everything that decides what it writes (JSON values)."""
    text = json.dumps(job, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextmanager
def resumable_folder(path: Path, job: str) -> Iterator[Path]:
    """Yield a hidden folder beside `path` that becomes `path` if the block succeeds.

    It is named after `path` and the `job` (see `digest`), so that the same job finds its files
    again after a kill, and another never does. Bad input removes it: the same job would fail the
    same way. A full disk or an interruption leaves it, where it holds anything.

    Raises:
        CheckpointError: something cannot be written.
    """
    temporary = path.with_name(f".{path.name}.partial-{job}")
    try:
        check_folder_name(path)
        temporary.mkdir(exist_ok=True)
        yield temporary
        move_into_place(temporary, path)
    except MezzotintError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    except OSError as cause:
        kept = _kept(temporary)
        reason = cause.strerror or str(cause)
        raise CheckpointError(
            f"{path}: cannot be written ({reason}); make room, or name a folder elsewhere{kept}"
        ) from cause
    except KeyboardInterrupt as interruption:
        if _kept(temporary):
            interruption.add_note(f"finished shards are kept in {temporary}")
            interruption.add_note("repeat the command to go on")
        raise
    for other in path.parent.glob(f".{glob.escape(path.name)}.partial-*"):
        shutil.rmtree(other, ignore_errors=True)


def _kept(temporary: Path) -> str:
    """Half a sentence on what is kept; a folder without any finished shard is removed."""
    if not any(temporary.rglob("[!.]*.safetensors")):
        shutil.rmtree(temporary, ignore_errors=True)
        return ""
    return f"; finished shards are kept in {temporary}, and the same command goes on from there"
