"""Files of tensors: complete or absent."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from mezzotint._files import replacing

_OF_TORCH = MappingProxyType({"format": "pt"})
"""Metadata that transformers asks for."""


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] = _OF_TORCH
) -> None:
    """Write a safetensors file, on disk before it has its name.

    Args:
        path: of the file.
        tensors: by name.
        metadata: texts for its header. Of several the order, and so the file, differs from time to
            time.

    Raises:
        OSError: it cannot be written.
    """
    with replacing(path) as temporary:
        try:
            save_file(
                {name: tensor.contiguous() for name, tensor in tensors.items()},
                temporary,
                metadata=dict(metadata),
            )
        except SafetensorError as cause:
            raise OSError(f"{path.name}: {cause}") from cause
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
