"""The dtype that a pipeline is loaded in where nobody asks for another: its checkpoint's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors import safe_open

from mezzotint._files import read_json
from mezzotint._tensor_files import DTYPES
from mezzotint.errors import ModelError
from mezzotint.models.denoiser import denoises
from mezzotint.models.folder import components
from mezzotint.models.source import CONFIG_FILE, INDEX_FILE
from mezzotint.models.stored_files import model_files

_FLOATING = (torch.float32, torch.bfloat16, torch.float16)


def folder_dtype(folder: Path, device: torch.device, variant: str | None = None) -> torch.dtype:
    """The dtype of a pipeline's folder, for a device: that of most of its denoisers' elements.

    Packed layers say nothing: their scales have dtypes of their own.

    Args:
        folder: of a pipeline, checked already.
        device: where it will be computed; see `computable`.
        variant: of the files.

    Raises:
        ModelError: the index or a configuration is no valid JSON.
        CheckpointError: an index of shards is malformed.
    """
    entries = components(folder / INDEX_FILE)
    names = [name for name, (_, kind) in entries.items() if _denoises(kind)] or list(entries)
    counts: Counter[torch.dtype] = Counter()
    for name in names:
        packed = _packed_layers(folder / name / CONFIG_FILE)
        counts += stored_elements(model_files(folder / name, variant), packed)
    return computable(commonest(counts), device)


def computable(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """The dtype, or float32, which holds every value of it, for float16 on a processor.

    Processors compute float16 an order of magnitude slower, and some operations not at all.
    """
    return torch.float32 if dtype == torch.float16 and device.type == "cpu" else dtype


def commonest(counts: Mapping[torch.dtype, int]) -> torch.dtype:
    """The dtype of most elements; float32 where there are none."""
    return max(_FLOATING, key=lambda dtype: counts.get(dtype, 0))


def stored_elements(
    files: Iterable[Path], packed: frozenset[str] = frozenset()
) -> Counter[torch.dtype]:
    """Floating dtype → number of elements in safetensors files, from the headers alone.

    Args:
        files: of one model.
        packed: names of layers of which only the bias counts.
    """
    counts: Counter[torch.dtype] = Counter()
    for file in files:
        with safe_open(file, framework="pt") as opened:
            for key in opened.keys():  # noqa: SIM118  (not a mapping)
                if not key.endswith(".bias") and _is_within(key, packed):
                    continue
                view = opened.get_slice(key)
                dtype = DTYPES.get(view.get_dtype())
                if dtype in _FLOATING:
                    counts[dtype] += torch.Size(view.get_shape()).numel()
    return counts


def _is_within(key: str, layers: frozenset[str]) -> bool:
    parts = key.split(".")
    return any(".".join(parts[:end]) in layers for end in range(1, len(parts)))


def _denoises(kind: str) -> bool:
    found = getattr(diffusers, kind, None)
    return isinstance(found, type) and denoises(found)


def _packed_layers(config_path: Path) -> frozenset[str]:
    """Names of the layers that a quantized model's plan has formats for."""
    if not config_path.is_file():
        return frozenset()
    config: Any = read_json(config_path, ModelError)
    for field in ("quantization_config", "plan", "layers"):
        config = config.get(field) if isinstance(config, dict) else None
    return frozenset(config) if isinstance(config, dict) else frozenset()
