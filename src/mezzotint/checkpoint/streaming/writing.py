"""The files of the packed checkpoint."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterable
from pathlib import Path

from diffusers.utils import SAFE_WEIGHTS_INDEX_NAME

from mezzotint._files import write_json
from mezzotint._progress import track
from mezzotint.checkpoint.save import copy_companions, write_digests
from mezzotint.checkpoint.streaming.conversions import Shard
from mezzotint.checkpoint.streaming.source_folder import Source
from mezzotint.checkpoint.streaming.stored_tensors import stored_tensors_of
from mezzotint.errors import CheckpointError
from mezzotint.models.source import INDEX_FILE


def pending(folder: Path, shards: Iterable[Shard]) -> tuple[Shard, ...]:
    """Shards that are not in `folder` yet; what a kill left of one is removed."""
    for leftover in folder.glob(".*.safetensors.*"):
        leftover.unlink()
    return tuple(shard for shard in shards if not _finished(folder / shard.file, shard))


def _finished(path: Path, shard: Shard) -> bool:
    if not path.is_file():
        return False
    try:
        found = stored_tensors_of((path,))
    except CheckpointError:  # a disk that lost its last writes
        return False
    return {name: tensor.spec for name, tensor in found.items()} == shard.outputs


def write_index(folder: Path, shards: tuple[Shard, ...]) -> None:
    """Write the index of tensors and their shards, where there are several."""
    if len(shards) == 1:
        return
    names = {name: shard.file for shard in shards for name in shard.outputs}
    total = sum(shard.nbytes for shard in shards)
    write_json(
        folder / SAFE_WEIGHTS_INDEX_NAME,
        {"metadata": {"total_size": total}, "weight_map": dict(sorted(names.items()))},
    )


def copy_rest(source: Source, target: Path) -> None:
    """Copy the pipeline's other components, its index and what lies beside them.

    What an interrupted run copied is done again: nothing tells whether it is still the same.
    """
    if source.component is None:
        return
    for part in track(source.parts, "Copying"):
        shutil.rmtree(target / part, ignore_errors=True)
        shutil.copytree(source.folder / part, target / part)
    write_digests(target, source.parts)
    shutil.copyfile(source.folder / INDEX_FILE, target / INDEX_FILE)
    copy_companions(source.folder, target)


def check_room(target: Path, source: Source, shards: Iterable[Shard]) -> None:
    """Refuse to begin where the disk cannot hold all that is still to be written.

    Raises:
        OSError: "no space left", as the disk itself would say in the end.
    """
    files = [
        file.relative_to(source.folder)
        for part in source.parts
        for file in (source.folder / part).rglob("*")
        if file.is_file()
    ]
    copies = sum(
        (source.folder / file).stat().st_size for file in files if not (target / file).is_file()
    )
    needed = copies + sum(shard.nbytes for shard in shards)
    free = shutil.disk_usage(target).free
    if needed > free:
        message = f"it takes {needed:,} bytes more, and {free:,} are free on that disk"
        raise OSError(errno.ENOSPC, message, str(target))
