"""Requests to a contestant, and its answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Inputs = dict[str, Any]
"""Keyword arguments of one denoiser call."""


@dataclass(frozen=True)
class Request:
    """One denoiser to load.

    Attributes:
        tool: the file in this folder that knows the tool.
        options: what the tool's file makes of it: widths, ways.
        folder: diffusers' folder of the denoiser, in 16-bit safetensors.
        class_name: of the denoiser, in diffusers.
        prepared: folder of this contestant's own files, written by `prepare`.
        dtype: of what is not quantized, and of the inputs.
        device: `cpu` or `cuda`.
        threads: of every library.
    """

    tool: str
    options: Mapping[str, Any]
    folder: str
    class_name: str
    prepared: str
    dtype: str
    device: str
    threads: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"options": dict(self.options)}

    @property
    def torch_dtype(self) -> torch.dtype:
        found = getattr(torch, self.dtype)
        assert isinstance(found, torch.dtype)
        return found

    @property
    def prepared_folder(self) -> Path:
        return Path(self.prepared)


@dataclass
class Loaded:
    """A denoiser that is ready to be called.

    Attributes:
        call: inputs to output tensor.
        stored_bytes: of its tensors: weights of `bits` bits count as that many, packed.
        held_bytes: of the tensors as they are held, where that is more.
        float32_bytes: of the plain parameters among them that are float32.
        note: what a reader of the table should know.
        describe: a note that can only be had after a call.
    """

    call: Callable[[Inputs], Tensor]
    stored_bytes: int
    held_bytes: int | None = None
    float32_bytes: int = 0
    note: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    describe: Callable[[], str] | None = None


class CannotRunError(Exception):
    """Reason why this contestant does not run here: becomes its row in the table."""
