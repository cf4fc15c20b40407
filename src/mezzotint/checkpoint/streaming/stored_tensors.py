"""The tensors of a checkpoint on disk: read one at a time, each from a mapping of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mezzotint._files import header_length
from mezzotint._tensor_files import DTYPES
from mezzotint.errors import CheckpointError, first_line
from mezzotint.formats import TensorSpec
from mezzotint.models import model_files

_READ = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL")
"""Dtypes that a diffusers model may be stored in; others, such as F8_E4M3, need scales."""


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a safetensors file, not read yet.

    Attributes:
        file: the safetensors file.
        key: its name in there.
        spec: shape and dtype, from the header.
    """

    file: Path
    key: str
    spec: TensorSpec

    def read(self) -> Tensor:
        """A view of the file: pages become resident as they are read, and go with the tensor.

        Raises:
            CheckpointError: the file is gone, truncated or damaged.
        """
        # A file opened once keeps every page ever read of it resident until it is closed.
        try:
            with safe_open(self.file, framework="pt") as file:
                tensor: Tensor = file.get_tensor(self.key)
        except (SafetensorError, OSError) as cause:
            raise _damaged(self.file, cause) from cause
        return tensor

    def __str__(self) -> str:
        return f"{self.file}: {self.key}"


def weight_files(folder: Path, variant: str | None = None) -> tuple[Path, ...]:
    """The safetensors files of a model's folder, by name: one, or those that the index lists.

    Args:
        folder: of a model of diffusers.
        variant: those of that name where there are any.

    Raises:
        CheckpointError: there is none, the index is malformed, or a file that it lists is missing
            or stands elsewhere.
    """
    found = model_files(folder, variant)
    if not found:
        raise CheckpointError(
            f"{folder}: holds neither {SAFETENSORS_WEIGHTS_NAME} nor its index of shards; "
            "save the model again with safe_serialization=True"
        )
    return found


def stored_tensors_of(files: tuple[Path, ...]) -> Mapping[str, StoredTensor]:
    """Name → tensor, from the headers alone.

    Raises:
        CheckpointError: a file is truncated or damaged, a tensor stands in two files, or is of a
            dtype that no floating model is stored in.
    """
    found: dict[str, StoredTensor] = {}
    for file in files:
        try:
            # Opening compares the file's length with the header; no tensor is read.
            with safe_open(file, framework="pt") as opened:
                for key in opened.keys():  # noqa: SIM118  (not a mapping)
                    if key in found:
                        raise CheckpointError(
                            f"{file}: {key}: stands in {found[key].file.name} too; "
                            "remove one of the files, or save the model again"
                        )
                    view = opened.get_slice(key)
                    found[key] = StoredTensor(file, key, _spec(file, key, view))
        except (SafetensorError, OSError) as cause:
            raise _damaged(file, cause) from cause
    return found


def _spec(file: Path, key: str, view: Any) -> TensorSpec:
    dtype = view.get_dtype()
    if dtype not in _READ:
        raise CheckpointError(
            f"{file}: {key}: is stored as {dtype}; only {', '.join(_READ)} are read: "
            "start from the original in float16, bfloat16 or float32"
        )
    return TensorSpec(tuple(view.get_shape()), DTYPES[dtype])


def file_digest(file: Path) -> str:
    """SHA-256 of all bytes of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def fingerprint(file: Path) -> list[object]:
    """Name, size, time of last change and the header's SHA-256: JSON values.

    Cheap, and different whenever a file was written anew.
    """
    status = file.stat()
    with file.open("rb") as opened:
        header = hashlib.sha256(opened.read(header_length(opened))).hexdigest()
    return [str(file.resolve()), status.st_size, status.st_mtime_ns, header]


def _damaged(file: Path, cause: Exception) -> CheckpointError:
    return CheckpointError(
        f"{file}: is missing, truncated or damaged ({first_line(cause)}); copy or download it again"
    )
