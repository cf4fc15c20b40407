"""Names of the safetensors files that a model is stored in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from diffusers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFETENSORS_WEIGHTS_NAME
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME as TRANSFORMERS_INDEX_NAME
from transformers.utils import SAFE_WEIGHTS_NAME as TRANSFORMERS_WEIGHTS_NAME

from mezzotint.models.folder import shard_files

_FILES = (
    (SAFE_WEIGHTS_INDEX_NAME, SAFETENSORS_WEIGHTS_NAME),
    (TRANSFORMERS_INDEX_NAME, TRANSFORMERS_WEIGHTS_NAME),
)
"""Names of a model's list of shards, and of its only file."""


def model_files(folder: Path, variant: str | None = None) -> tuple[Path, ...]:
    """The safetensors files of a model's folder: one, or those that its index lists; or none.

    Args:
        folder: of a model of diffusers or transformers.
        variant: those of that name where there are any, as diffusers chooses.

    Raises:
        CheckpointError: the index is malformed, or a file that it lists is missing or stands
            elsewhere.
    """
    for index, single in _names(variant):
        if (folder / index).is_file():
            return shard_files(folder / index)
        if (folder / single).is_file():
            return (folder / single,)
    return ()


def _names(variant: str | None) -> Iterator[tuple[str, str]]:
    if variant is not None:
        for names in _FILES:
            # The variant stands before the last ending: model.safetensors.index.fp16.json.
            index, single = (name.rsplit(".", 1) for name in names)
            yield f"{index[0]}.{variant}.{index[1]}", f"{single[0]}.{variant}.{single[1]}"
    yield from _FILES
