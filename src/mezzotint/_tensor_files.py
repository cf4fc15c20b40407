"""Files of tensors: complete or absent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from mezzotint._files import replacing

DTYPES = MappingProxyType(
    {
        "F64": torch.float64,
        "F32": torch.float32,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "F8_E4M3": torch.float8_e4m3fn,
        "F8_E5M2": torch.float8_e5m2,
        "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
        "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
        "F8_E8M0": torch.float8_e8m0fnu,
        "C64": torch.complex64,
        "I64": torch.int64,
        "I32": torch.int32,
        "I16": torch.int16,
        "I8": torch.int8,
        "U64": torch.uint64,
        "U32": torch.uint32,
        "U16": torch.uint16,
        "U8": torch.uint8,
        "BOOL": torch.bool,
    }
)
"""Names of dtypes in the headers of safetensors files."""

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
