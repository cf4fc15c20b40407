"""The files of the packed checkpoint."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from diffusers.utils import SAFE_WEIGHTS_INDEX_NAME

from mezzotint._digest_file import DigestFile
from mezzotint._files import read_json, write_json
from mezzotint._progress import track
from mezzotint._tensor_digests import file_digests
from mezzotint.checkpoint.save import copy_companions
from mezzotint.checkpoint.streaming.conversions import Shard
from mezzotint.checkpoint.streaming.source_folder import Source
from mezzotint.errors import CheckpointError
from mezzotint.models import contents, files_of_variant, is_weights, without_variant
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


def copied_files(source: Source) -> dict[Path, Path]:
    """File of the pipeline's other components → its place below the packed pipeline's folder.

    Weights of the source's variant lose it in their names, and others beside them are left out.
    """
    found: dict[Path, Path] = {}
    for part in source.parts:
        own = files_of_variant(source.folder / part, source.variant)
        for file in contents(source.folder / part, source.folder):
            if not file.is_file() or (own and is_weights(file.name) and file not in own):
                continue
            name = without_variant(file.name, source.variant) if file in own else file.name
            found[file] = file.relative_to(source.folder).with_name(name)
    return found


def digests_of_copies(source: Source) -> DigestFile:
    """The digests of the other components' tensors as the source has them.

    Raises:
        CheckpointError: a file is truncated or damaged, or a tensor holds NaN or infinity.
    """
    return DigestFile(
        {
            place.as_posix(): file_digests(file)
            for file, place in copied_files(source).items()
            if place.suffix == ".safetensors"
        }
    )


def copy_rest(source: Source, target: Path, digests: DigestFile) -> None:
    """Copy the pipeline's other components, its index and what lies beside them.

    What an interrupted run copied is done again: nothing tells whether it is still the same.

    Args:
        source: of them.
        target: folder of the packed pipeline.
        digests: of `digests_of_copies`, by which the copies are judged when they are loaded.
    """
    if source.component is None:
        return
    for part in source.parts:
        shutil.rmtree(target / part, ignore_errors=True)
        (target / part).mkdir()
    for file, place in track(copied_files(source).items(), "Copying"):
        (target / place).parent.mkdir(parents=True, exist_ok=True)
        if place.name != file.name and place.suffix == ".json":
            write_json(target / place, _index_without_variant(file, source.variant))
        else:
            shutil.copy2(file, target / place)
    digests.save(target / DigestFile.FILE)
    shutil.copyfile(source.folder / INDEX_FILE, target / INDEX_FILE)
    copy_companions(source.folder, target)


def _index_without_variant(path: Path, variant: str | None) -> dict[str, Any]:
    """A list of shards, checked already, whose files lose the variant in their names."""
    index: dict[str, Any] = read_json(path, CheckpointError)
    shards = {name: without_variant(file, variant) for name, file in index["weight_map"].items()}
    return index | {"weight_map": shards}


def check_room(target: Path, source: Source, shards: Iterable[Shard]) -> None:
    """Refuse to begin where the disk cannot hold all that is still to be written.

    Raises:
        OSError: "no space left", as the disk itself would say in the end.
    """
    others = copied_files(source)
    copies = sum(
        file.stat().st_size for file, place in others.items() if not (target / place).is_file()
    )
    needed = copies + sum(shard.nbytes for shard in shards)
    free = shutil.disk_usage(target).free
    if needed > free:
        message = f"it takes {needed:,} bytes more, and {free:,} are free on that disk"
        raise OSError(errno.ENOSPC, message, str(target))
