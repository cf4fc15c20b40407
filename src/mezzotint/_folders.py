"""Folders that are complete or absent: built beside their place, and moved there in one step."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mezzotint._durable import exchange, sync_folder, sync_tree
from mezzotint._files import check_no_file, note_written, umask
from mezzotint._locks import only_here
from mezzotint.errors import UsageError


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling folder that becomes `path` if the block succeeds.

    A folder already at `path` is kept until then, and is then replaced. Contents and names are on
    disk before this returns. Remains of a save of the same folder that was killed are removed.

    Raises:
        UsageError: a file stands there; another process is at work on it, or has written there
            since this began.
    """
    check_no_file(path)
    with only_here(path, again=True):
        put_back(path)
        for remains in _remains(path):
            shutil.rmtree(remains, ignore_errors=True)
        before = state_of(path)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.saving-", dir=path.parent))
        try:
            yield temporary
            move_into_place(temporary, path, before)
        finally:
            _remove(temporary)


def state_of(path: Path) -> tuple[int, int] | None:
    """Identity and time of last change of what stands at `path`; None for nothing."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def move_into_place(temporary: Path, path: Path, before: tuple[int, int] | None) -> None:
    """Let the folder `temporary` become `path`, on the same disk; one already there is replaced.

    In one step where the system can exchange two folders (Linux, on its usual file systems).
    Elsewhere there is a moment between two renames in which nothing stands at `path`, and the
    former folder beside it: see `put_back`.

    Args:
        temporary: complete; on disk before it is moved.
        path: of the result.
        before: `state_of(path)` when the work began.

    Raises:
        UsageError: something else has been written there since.
    """
    temporary.chmod(0o777 & ~umask())
    sync_tree(temporary)
    if state_of(path) != before:
        raise UsageError(
            f"{path}: another program has written there meanwhile, and nothing was replaced; name "
            "another folder"
        )
    if before is None:
        temporary.replace(path)
        sync_folder(path.parent)
        note_written(path)
        return
    if not exchange(temporary, path):
        former = _former(path)
        path.replace(former)
        temporary.replace(path)
        former.replace(temporary)
    sync_folder(path.parent)
    note_written(path)
    _remove(temporary)


def put_back(path: Path) -> None:
    """Undo a replacement that was killed between its two renames; remove what another left."""
    former = _former(path)
    if former.exists() and not path.exists():
        former.replace(path)
    elif former.exists():
        _remove(former)


def _former(path: Path) -> Path:
    """Place of the former folder for a moment, where folders cannot be exchanged."""
    return path.with_name(f".{path.name}.former")


def _remains(path: Path) -> list[Path]:
    """Temporary folders of saves of `path`; whoever holds its lock may remove them."""
    name = re.compile(rf"\.{re.escape(path.name)}\.saving-\w{{8}}")
    return [each for each in path.parent.iterdir() if name.fullmatch(each.name)]


def _remove(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)
