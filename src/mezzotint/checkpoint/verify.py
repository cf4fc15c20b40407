"""Comparison of a checkpoint on disk with the digests that were saved with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mezzotint._digest_file import DigestFile, checked_digests
from mezzotint._tensor_digests import check_digests, file_digests, stored_places
from mezzotint.checkpoint.save import quantization_configs
from mezzotint.checkpoint.streaming.stored_tensors import weight_files
from mezzotint.errors import CheckpointError, ModelError
from mezzotint.models import check_model_folder
from mezzotint.models.source import CONFIG_FILE, INDEX_FILE


@dataclass(frozen=True)
class VerifiedFile:
    """One safetensors file of a checkpoint.

    Attributes:
        name: its path below the folder.
        tensors: number of them.
        nbytes: of the tensors.
        verified: True if each is the one that was saved; False if the checkpoint does not say what
            was saved.
    """

    name: str
    tensors: int
    nbytes: int
    verified: bool

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def verify_checkpoint(folder: str | Path) -> tuple[VerifiedFile, ...]:
    """Read every tensor of a pipeline, or of a denoiser by itself, and compare its digest.

    Files of an older version, or of a floating pipeline, have no digests: they are read for NaN and
    infinity alone, and said not to be verified.

    Raises:
        ModelError: there is no such folder, or it is unsafe.
        CheckpointError: a file is missing, truncated or damaged; a tensor is not the one that was
            saved, or holds NaN or infinity. Files and tensors are named.
    """
    folder = Path(folder)
    if not folder.is_dir() or not any((folder / name).is_file() for name in _MODEL_FILES):
        raise ModelError(f"{folder}: is no folder of a pipeline or a model; name one")
    check_model_folder(folder)
    files = sorted(folder.rglob("*.safetensors"))
    if not files:
        raise CheckpointError(f"{folder}: holds no safetensors file; copy the whole folder")
    found = {file: file_digests(file) for file in files}
    known: set[Path] = set()
    for packed, digests in _denoisers(folder):
        shards = weight_files(packed)
        check_digests({n: d for each in shards for n, d in found[each].items()}, digests, packed)
        known.update(shards)
    if (folder / DigestFile.FILE).exists():
        for name, expected in DigestFile.load(folder / DigestFile.FILE).files.items():
            check_digests(found.get(folder / name, {}), expected, folder / name)
            known.add(folder / name)
    return tuple(_verified(folder, file, file in known) for file in files)


_MODEL_FILES = (INDEX_FILE, CONFIG_FILE)


def _denoisers(folder: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """Each packed model's folder, and the digests in its config.json."""
    for path, config in quantization_configs(folder, CheckpointError):
        if config.get("sha256") is not None:
            where = f"{path}: quantization_config: sha256"
            yield path.parent, checked_digests(config["sha256"], where)


def _verified(folder: Path, file: Path, known: bool) -> VerifiedFile:
    places = stored_places(file).values()
    size = sum(place.nbytes for place in places)
    return VerifiedFile(file.relative_to(folder).as_posix(), len(places), size, known)
