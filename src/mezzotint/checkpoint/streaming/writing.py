"""The files of the packed checkpoint."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterable
from pathlib import Path

from diffusers.utils import SAFE_WEIGHTS_INDEX_NAME

from mezzotint._digest_file import DigestFile
from mezzotint._files import write_json
from mezzotint._progress import track
from mezzotint.checkpoint.save import copy_companions
from mezzotint.checkpoint.streaming.conversions import Shard
from mezzotint.checkpoint.streaming.source_folder import Source
from mezzotint.models.source import INDEX_FILE


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


def copy_rest(source: Source, target: Path, digests: DigestFile) -> None:
    """Copy the pipeline's other components, its index and what lies beside them.

    What an interrupted run copied is done again: nothing tells whether it is still the same.

    Args:
        source: of them.
        target: folder of the packed pipeline.
        digests: of the components as the source has them, by which the copies are judged when they
            are loaded.
    """
    if source.component is None:
        return
    for part in track(source.parts, "Copying"):
        shutil.rmtree(target / part, ignore_errors=True)
        shutil.copytree(source.folder / part, target / part)
    digests.save(target / DigestFile.FILE)
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
