"""Digests of the tensors beside a pipeline's denoiser, in one file of its folder."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict
from typing_extensions import override

from mezzotint._files import JsonFile, validated
from mezzotint._tensor_digests import check_digests, file_digests
from mezzotint.errors import CheckpointError, MezzotintError

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class DigestFile(JsonFile):
    """Digests of safetensors files, tensor by tensor.

    Those of a packed denoiser stand in its config.json, which goes wherever the denoiser goes.

    Attributes:
        files: path below the pipeline's folder, with slashes → tensor → SHA-256.
    """

    FILE: ClassVar[str] = "digests.json"
    error: ClassVar[type[MezzotintError]] = CheckpointError

    files: Mapping[str, Mapping[str, str]]

    @classmethod
    def of(cls, folder: Path, components: Iterable[str]) -> Self:
        """The digests of all safetensors files below some folders of a pipeline's.

        Raises:
            CheckpointError: a file is truncated or damaged, or a tensor holds NaN or infinity.
        """
        found = sorted(
            path for name in components for path in (folder / name).rglob("*.safetensors")
        )
        return cls({path.relative_to(folder).as_posix(): file_digests(path) for path in found})

    def check(self, folder: Path) -> None:
        """Compare the files below the pipeline's folder.

        Raises:
            CheckpointError: a file is missing or damaged, or a tensor is another; both are named.
        """
        for name, expected in self.files.items():
            check_digests(file_digests(folder / name), expected, folder / name)

    @override
    def to_dict(self) -> dict[str, Any]:
        return {"version": 1, "files": {name: dict(each) for name, each in self.files.items()}}

    @classmethod
    @override
    def from_dict(cls, value: Any, source: str) -> Self:
        files = validated(_Document, value, source, CheckpointError).files
        for name in files:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or path.suffix != ".safetensors":
                raise CheckpointError(
                    f"{source}: field files: {name!r} is no safetensors file of this folder; save "
                    "the model again"
                )
        return cls(
            {
                name: checked_digests(each, f"{source}: field files.{name}")
                for name, each in files.items()
            }
        )


def check_digest_file(folder: Path) -> None:
    """Compare a pipeline's files with its digests, where it has any.

    Raises:
        CheckpointError: as `DigestFile.check`, or the digests themselves are malformed.
    """
    path = folder / DigestFile.FILE
    if path.exists():
        DigestFile.load(path).check(folder)


def checked_digests(value: Any, source: object) -> dict[str, str]:
    """Tensor → SHA-256, from JSON.

    Raises:
        CheckpointError: it is something else.
    """
    if not isinstance(value, Mapping) or not all(
        isinstance(each, str) and _SHA256.fullmatch(each) for each in value.values()
    ):
        raise CheckpointError(
            f"{source}: is no table of tensors and their SHA-256; save the model again"
        )
    return dict(value)


class _Document(BaseModel):
    model_config = ConfigDict(strict=True)

    version: Literal[1]
    files: dict[str, Any]
