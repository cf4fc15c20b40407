"""Comparison of a checkpoint on disk with the digests that were saved with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mezzotint._digest_file import DigestFile, checked_digests
from mezzotint._tensor_digests import check_digests, file_digests
from mezzotint._verified_file import VerifiedFile
from mezzotint.checkpoint.save import quantization_configs
from mezzotint.checkpoint.streaming.stored_tensors import weight_files
from mezzotint.errors import CheckpointError, ModelError
from mezzotint.models import check_model_folder
from mezzotint.models.source import CONFIG_FILE, INDEX_FILE


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
    saved = [*_denoisers(folder), *_others(folder)]
    known = {file for each in saved for file in each.files if file.is_file()}
    # A link to a folder is not gone into by rglob, and leads to files that are loaded.
    files = sorted({*folder.rglob("*.safetensors"), *known})
    if not files:
        raise CheckpointError(f"{folder}: holds no safetensors file; copy the whole folder")
    found = {file: file_digests(file) for file in files}
    for each in saved:
        stored = {n: d for file in each.files for n, d in found.get(file, {}).items()}
        check_digests(stored, each.digests, each.source)
    real = {file.resolve() for file in known}
    return tuple(VerifiedFile.of(folder, file, verified=file.resolve() in real) for file in files)


_MODEL_FILES = (INDEX_FILE, CONFIG_FILE)


@dataclass(frozen=True)
class _Saved:
    """Tensors as they were saved.

    Attributes:
        source: for errors.
        files: that hold the tensors, or should.
        digests: tensor → SHA-256.
    """

    source: Path
    files: tuple[Path, ...]
    digests: Mapping[str, str]


def _denoisers(folder: Path) -> Iterator[_Saved]:
    """Packed models, whose digests stand in their config.json."""
    for path, config in quantization_configs(folder, CheckpointError):
        if config.get("sha256") is not None:
            where = f"{path}: quantization_config: sha256"
            digests = checked_digests(config["sha256"], where)
            yield _Saved(path.parent, weight_files(path.parent), digests)


def _others(folder: Path) -> Iterator[_Saved]:
    """Files of a pipeline's other components."""
    if (folder / DigestFile.FILE).exists():
        for name, digests in DigestFile.load(folder / DigestFile.FILE).files.items():
            yield _Saved(folder / name, (folder / name,), digests)
