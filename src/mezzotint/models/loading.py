"""Loading a pipeline with stock diffusers, with errors that name the file at fault."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import deprecation_utils
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError, safe_open
from transformers.utils import logging as transformers_logging

from mezzotint._files import read_json
from mezzotint.errors import CheckpointError, MezzotintError, ModelError
from mezzotint.models.source import INDEX_FILE, ResolvedSource, resolve


def load_pipeline(
    source: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> DiffusionPipeline:
    """Load a pipeline by embedded name, local folder or Hub id, in evaluation mode.

    Only safetensors are read: nothing is unpickled. Progress bars are off.

    Raises:
        ModelError: the source is missing or incomplete, or diffusers cannot load it.
        CheckpointError: a safetensors file is truncated or damaged.
    """
    resolved = resolve(source)
    if resolved.folder is not None:
        check_folder(resolved.folder)
    pipe = _from_pretrained(resolved, dtype)
    pipe.set_progress_bar_config(disable=True)
    try:
        return pipe.to(device)
    except (RuntimeError, AssertionError) as cause:
        raise ModelError(f"{device}: cannot be used ({_first_line(cause)})") from cause


def check_folder(folder: Path) -> None:
    """Check that a pipeline's folder is complete, reading no more than file headers.

    Raises:
        ModelError: `model_index.json` is malformed, or a component it lists is missing.
        CheckpointError: a safetensors file is truncated or damaged, or a shard is missing.
    """
    index_path = folder / INDEX_FILE
    index = read_json(index_path, ModelError)
    if not isinstance(index, dict) or "_class_name" not in index:
        raise ModelError(f"{index_path}: _class_name: is missing; this is not a diffusers pipeline")
    for name, entry in index.items():
        is_component = isinstance(entry, list) and len(entry) == 2 and entry[0] is not None
        if is_component and not (folder / name).is_dir():
            raise ModelError(
                f"{folder}: the component {name!r} that {INDEX_FILE} lists is missing; "
                "copy or save the whole pipeline again"
            )
    for path in sorted(folder.glob("*/*.safetensors.index.json")):
        _check_shards(path)
    for path in sorted(folder.rglob("*.safetensors")):
        _check_safetensors(path)


def _check_shards(index_path: Path) -> None:
    index = read_json(index_path, CheckpointError)
    shards = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(shards, dict):
        raise CheckpointError(f"{index_path}: weight_map: is missing; save the pipeline again")
    for shard in sorted(set(map(str, shards.values()))):
        if not (index_path.parent / shard).is_file():
            raise CheckpointError(
                f"{index_path.parent / shard}: is missing, but {index_path.name} lists it; "
                "copy it again"
            )


def _check_safetensors(path: Path) -> None:
    try:
        # Opening maps the file and compares its length with the header; no tensor is read.
        with safe_open(path, framework="pt"):
            pass
    except (SafetensorError, OSError) as cause:
        raise CheckpointError(
            f"{path}: is truncated or damaged ({_first_line(cause)}); copy or download it again"
        ) from cause


def _from_pretrained(source: ResolvedSource, dtype: torch.dtype) -> DiffusionPipeline:
    try:
        with quiet_libraries(warnings=source.kind != "embedded"):
            return DiffusionPipeline.from_pretrained(
                source.location, use_safetensors=True, **dtype_argument(dtype)
            )
    except MezzotintError:  # from our own quantizer, and already clear
        raise
    except Exception as cause:  # diffusers and every component's own code may raise anything
        if source.kind == "hub":
            remedy = (
                "it is no local folder either; check the spelling, the network connection and, "
                "for gated models, `hf auth login`"
            )
        else:
            remedy = "weights must be safetensors and of the classes that its configuration names"
        raise ModelError(
            f"{source.location}: diffusers cannot load it ({_first_line(cause)}); {remedy}"
        ) from cause


def dtype_argument(dtype: torch.dtype) -> dict[str, torch.dtype]:
    """The keyword for from_pretrained: newer diffusers calls it `dtype` and warns of the old one.

    Neither version complains of the other's keyword where it ignores it, hence this look inside.
    """
    renamed = hasattr(deprecation_utils, "_resolve_dtype")
    return {"dtype" if renamed else "torch_dtype": dtype}


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@contextmanager
def quiet_libraries(*, warnings: bool = True) -> Iterator[None]:
    """Hide the loading bars of diffusers and transformers; afterwards all is as before.

    Without `warnings` those of diffusers are hidden too: it finds a CLIP text encoder unusual in
    PixArt, and says so each time.
    """
    libraries = [
        library
        for library in (diffusers_logging, transformers_logging)
        if library.is_progress_bar_enabled()
    ]
    verbosity = diffusers_logging.get_verbosity()
    transformers_verbosity = transformers_logging.get_verbosity()
    # It asks for torchvision, which nothing here needs.
    transformers_logging.set_verbosity_error()
    for library in libraries:
        library.disable_progress_bar()
    if not warnings:
        diffusers_logging.set_verbosity_error()
    try:
        yield
    finally:
        diffusers_logging.set_verbosity(verbosity)
        transformers_logging.set_verbosity(transformers_verbosity)
        for library in libraries:
            library.enable_progress_bar()
