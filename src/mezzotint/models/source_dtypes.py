"""Notes on a loaded pipeline of the dtypes that its checkpoint has."""

from __future__ import annotations

from pathlib import Path

from diffusers import DiffusionPipeline
from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError
from torch import nn

from mezzotint._stored_dtypes import has_notes, note_dtypes, read_dtypes
from mezzotint.errors import MezzotintError
from mezzotint.models.home import home_of
from mezzotint.models.source import INDEX_FILE, resolve
from mezzotint.models.stored_files import model_files


def note_source_dtypes(
    pipe: DiffusionPipeline, folder: Path | None = None, variant: str | None = None
) -> None:
    """Note on the pipeline's models in which dtypes their tensors were stored.

    Models that have notes already keep them. What is not found says nothing: a pipeline that was
    made in memory is stored as it is.

    Args:
        pipe: loaded by whatever means.
        folder: where it was loaded from; by default where its own name leads, if that is there.
        variant: of the files that were read.
    """
    folder = folder or _folder_of(pipe)
    if folder is None:
        return
    for name, component in pipe.components.items():
        if isinstance(component, nn.Module) and not has_notes(component):
            _note(component, folder / name, variant)


def _note(model: nn.Module, folder: Path, variant: str | None) -> None:
    try:
        dtypes = read_dtypes(model_files(folder, variant))
    except (MezzotintError, SafetensorError, OSError):
        return  # it has been replaced since it was loaded
    rename = getattr(model, "_fix_state_dict_keys_on_load", None)
    if rename is not None:
        rename(dtypes)
    note_dtypes(model, dtypes)


def _folder_of(pipe: DiffusionPipeline) -> Path | None:
    """The local folder, or the copy of a Hub's repository, that the pipeline's name leads to."""
    if not pipe.name_or_path:
        return None
    try:
        found = resolve(pipe.name_or_path)
    except MezzotintError:
        return None
    if found.kind == "file":
        return None  # its own layout has other names; they were noted when it was read
    if (folder := found.folder or home_of(pipe)) is not None:
        return folder
    cached = try_to_load_from_cache(found.location, INDEX_FILE)
    return Path(cached).parent if isinstance(cached, str) else None
