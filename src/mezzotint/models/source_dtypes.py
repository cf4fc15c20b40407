"""Notes on a loaded pipeline of the dtypes that its checkpoint has."""

from __future__ import annotations

from pathlib import Path

from diffusers import DiffusionPipeline
from diffusers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFETENSORS_WEIGHTS_NAME
from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError
from torch import nn
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME as TRANSFORMERS_INDEX_NAME
from transformers.utils import SAFE_WEIGHTS_NAME as TRANSFORMERS_WEIGHTS_NAME

from mezzotint._stored_dtypes import has_notes, note_dtypes, read_dtypes
from mezzotint.errors import MezzotintError
from mezzotint.models.folder import shard_files
from mezzotint.models.source import INDEX_FILE, resolve

_FILES = (
    (SAFE_WEIGHTS_INDEX_NAME, SAFETENSORS_WEIGHTS_NAME),
    (TRANSFORMERS_INDEX_NAME, TRANSFORMERS_WEIGHTS_NAME),
)
"""Names of a model's list of shards, and of its only file."""


def note_source_dtypes(pipe: DiffusionPipeline, folder: Path | None = None) -> None:
    """Note on the pipeline's models in which dtypes their tensors were stored.

    Models that have notes already keep them. What is not found says nothing: a pipeline that was
    made in memory is stored as it is.

    Args:
        pipe: loaded by whatever means.
        folder: where it was loaded from; by default where its own name leads, if that is there.
    """
    folder = folder or _folder_of(pipe)
    if folder is None:
        return
    for name, component in pipe.components.items():
        if isinstance(component, nn.Module) and not has_notes(component):
            _note(component, folder / name)


def _note(model: nn.Module, folder: Path) -> None:
    try:
        dtypes = read_dtypes(model_files(folder))
    except (MezzotintError, SafetensorError, OSError):
        return  # it has been replaced since it was loaded
    rename = getattr(model, "_fix_state_dict_keys_on_load", None)
    if rename is not None:
        rename(dtypes)
    note_dtypes(model, dtypes)


def model_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors files of a model's folder, diffusers' or transformers'; none where none are.

    Raises:
        CheckpointError: the index is malformed, or a file that it lists is missing or stands
            elsewhere.
    """
    for index, single in _FILES:
        if (folder / index).is_file():
            return shard_files(folder / index)
        if (folder / single).is_file():
            return (folder / single,)
    return ()


def _folder_of(pipe: DiffusionPipeline) -> Path | None:
    """The local folder, or the copy of a Hub's repository, that the pipeline's name leads to."""
    if not pipe.name_or_path:
        return None
    try:
        found = resolve(pipe.name_or_path)
    except MezzotintError:
        return None
    if found.folder is not None:
        return found.folder
    cached = try_to_load_from_cache(found.location, INDEX_FILE)
    return Path(cached).parent if isinstance(cached, str) else None
