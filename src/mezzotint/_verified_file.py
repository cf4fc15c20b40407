"""A safetensors file whose tensors were compared with those that were saved."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from mezzotint._tensor_digests import stored_places


@dataclass(frozen=True)
class VerifiedFile:
    """One safetensors file of a checkpoint, or of a bank.

    Attributes:
        name: its path below the folder.
        tensors: number of them.
        nbytes: of the tensors.
        verified: True if each is the one that was saved; False if nothing says what was saved.
    """

    name: str
    tensors: int
    nbytes: int
    verified: bool

    @classmethod
    def of(cls, folder: Path, file: Path, *, verified: bool) -> Self:
        """The file, which stands below the folder.

        Raises:
            CheckpointError: it is missing, truncated or damaged.
        """
        places = stored_places(file).values()
        size = sum(place.nbytes for place in places)
        return cls(file.relative_to(folder).as_posix(), len(places), size, verified)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)
