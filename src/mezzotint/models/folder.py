"""Checks of a model's folder, made before diffusers or transformers read it.

A model is data. Both libraries can be led, by files of the folder alone, to import code, to
unpickle weights or to read elsewhere on the disk; a folder that asks for any of that is refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
from huggingface_hub import constants
from safetensors import SafetensorError, safe_open

from mezzotint._files import read_json
from mezzotint.errors import CheckpointError, ModelError, first_line
from mezzotint.models.layer_counts import TensorCounts
from mezzotint.models.source import INDEX_FILE

_CONFIGS = "config.json"
"""Ending of the JSON files in which diffusers and transformers look for classes to load."""

_INDEX = ".safetensors.index"
"""Part of the name of a list of shards, be it `….index.json` or a variant's `….index.fp16.json`."""

_ADAPTER = "adapter_config.json"

_LONGEST_NAME = 255
"""Bytes of a file's name, on the usual file systems."""

_CODE_KEYS = ("auto_map", "trust_remote_code", "custom_pipeline", "allow_all_kernels")
"""Fields of a configuration that name code, or permit it."""

_LIBRARIES = ("diffusers", "transformers")


def check_folder(folder: Path) -> None:
    """Check that a pipeline's folder is complete and harmless, reading only JSON and headers.

    Raises:
        ModelError: `model_index.json` is malformed or lists a component that is missing; or the
            folder holds code, a configuration that names any, or a link that leads outside.
        CheckpointError: a safetensors file is truncated or damaged, or a shard is missing or has
            another name than a file of the same folder.
    """
    index_path = folder / INDEX_FILE
    for name in components(index_path):
        if not (folder / name).is_dir():
            raise ModelError(
                f"{folder}: the component {name!r} that {INDEX_FILE} lists is missing; "
                "copy or save the whole pipeline again"
            )
    check_model_folder(folder)


def check_model_folder(folder: Path) -> None:
    """Check that the folder of a model, or of several, is harmless and its files are whole.

    Raises:
        ModelError, CheckpointError: as for `check_folder`.
    """
    counts = TensorCounts()
    for path in contents(folder):
        # Some file systems do not tell upper case from lower.
        name = path.name.lower()
        if path.is_dir():
            continue
        if path.exists() and not path.is_file():
            raise ModelError(f"{path}: is no regular file, and reading it may never end; remove it")
        if name.endswith(".py"):
            raise ModelError(
                f"{path}: is code, and none that comes with a model is run; remove the file if the "
                "model does without it"
            )
        if name == _ADAPTER:
            raise ModelError(
                f"{path}: is an adapter's, which may name other weights; merge the adapter into "
                "the model and save that, or remove the adapter's files"
            )
        if name == INDEX_FILE:
            components(path)
        elif name.endswith(_CONFIGS):
            config = read_json(path, ModelError)
            _check_config(path, config)
            counts.configured(path, config)
        elif _INDEX in name and name.endswith(".json"):
            shard_files(path)
        elif name.endswith(".safetensors"):
            counts.stored(path, check_safetensors(path))
    counts.check()


def components(index_path: Path) -> dict[str, tuple[str, str]]:
    """Component → library and class, as a pipeline's index lists them; null ones are left out.

    Raises:
        ModelError: the index is malformed, or a component is neither of diffusers nor of
            transformers.
    """
    index = read_json(index_path, ModelError)
    if not isinstance(index, dict) or "_class_name" not in index:
        raise ModelError(f"{index_path}: _class_name: is missing; this is not a diffusers pipeline")
    _check_config(index_path, index)
    entries = {
        name: entry
        for name, entry in index.items()
        if isinstance(entry, list) and len(entry) == 2 and entry[0] is not None
    }
    for name, (library, kind) in entries.items():
        if not name.isidentifier():
            raise ModelError(f"{index_path}: {name!r}: is no name of a component; remove the entry")
        if not _is_known(library) or not _is_class_name(kind):
            raise ModelError(
                f"{index_path}: {name}: is {[library, kind]}; only classes of diffusers and "
                "transformers are loaded: save the pipeline with a component of theirs"
            )
    return {name: (library, kind) for name, (library, kind) in entries.items()}


def shard_files(index_path: Path) -> tuple[Path, ...]:
    """The files that a list of shards names, each once, by name.

    Raises:
        CheckpointError: the list is malformed, a file is missing, or a name is not that of a
            safetensors file in the same folder.
    """
    index = read_json(index_path, CheckpointError)
    shards = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(shards, dict) or not shards:
        raise CheckpointError(f"{index_path}: weight_map: is missing; save the model again")
    names = sorted(set(map(str, shards.values())))
    for name in names:
        if not _is_plain(name) or not name.endswith(".safetensors"):
            raise CheckpointError(
                f"{index_path}: weight_map: {name!r} is not the name of a safetensors file beside "
                "it; save the model again with safe_serialization=True"
            )
        if len(os.fsencode(name)) > _LONGEST_NAME:
            raise CheckpointError(
                f"{index_path}: weight_map: {name[:40]!r}… is too long for a file's name; "
                "save the model again"
            )
        if not (index_path.parent / name).is_file():
            raise CheckpointError(
                f"{index_path.parent / name}: is missing, but {index_path.name} lists it; "
                "copy it again"
            )
    return tuple(index_path.parent / name for name in names)


def contents(folder: Path, within: Path | None = None) -> Iterator[Path]:
    """Everything below `folder`, also what links to folders lead to.

    Args:
        folder: of a model, or of a pipeline.
        within: folder that links may lead into; by default the same.

    Raises:
        ModelError: a link leads neither in there nor into the Hub's cache.
    """
    allowed = _allowed_roots(within or folder)
    pending, seen = [folder], set()
    while pending:
        here = pending.pop()
        if (real := here.resolve()) in seen:
            continue
        seen.add(real)
        for path in sorted(here.iterdir()):
            if path.is_symlink():
                _check_link(path, allowed)
            if path.is_dir():
                pending.append(path)
            yield path


def _allowed_roots(folder: Path) -> list[Path]:
    """Folders that links may lead into: this one and the Hub's cache, wherever it is.

    A cached pipeline is a folder `snapshots/COMMIT` of links into the `blobs` beside `snapshots`.
    """
    real = folder.resolve()
    blobs = [each.parent / "blobs" for each in real.parents if each.name == "snapshots"]
    return [real, Path(constants.HF_HUB_CACHE).resolve(), *blobs]


def leads_outside(path: Path, folder: Path) -> bool:
    """True for a link out of a model's folder, and out of the Hub's cache, wherever it leads."""
    target = path.resolve()
    return not any(target.is_relative_to(root) for root in _allowed_roots(folder))


def _check_link(path: Path, allowed: list[Path]) -> None:
    try:
        target = path.resolve()
    except (OSError, RuntimeError) as cause:  # links in a circle
        raise ModelError(f"{path}: is a link that leads nowhere ({cause}); remove it") from cause
    if not any(target.is_relative_to(root) for root in allowed):
        raise ModelError(
            f"{path}: is a link to {target}, outside the model's folder; put a copy of the file in "
            "its place"
        )


def _check_config(path: Path, config: Any) -> None:
    """Refuse a configuration that names code, or weights that are no safetensors."""
    fields = config if isinstance(config, dict) else {}
    kind = fields.get("_class_name", "Absent")
    if not _is_class_name(kind):
        raise ModelError(
            f"{path}: _class_name: is {kind!r}, not the name of a class; restore the file"
        )
    key = _code_key(config)
    if key is not None:
        raise ModelError(
            f"{path}: {key}: names code that comes with the model, and none is run; remove the "
            "field if the model does without it"
        )
    weights = fields.get("transformers_weights")
    if weights is not None and not (
        isinstance(weights, str)
        and _is_plain(weights)
        and weights.endswith((".safetensors", f"{_INDEX}.json"))
    ):
        raise ModelError(
            f"{path}: transformers_weights: {weights!r} is not the name of a safetensors file "
            "beside it; save the model again with safe_serialization=True"
        )


def _code_key(config: Any) -> str | None:
    """The first field in a JSON value, at any depth, that names or permits code."""
    pending = [config]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            found = [key for key in _CODE_KEYS if value.get(key)]
            if found:
                return found[0]
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
    return None


def _is_known(library: Any) -> bool:
    """True if components may come from there: the two libraries, and diffusers' own pipelines.

    Such as `stable_diffusion`, which has the safety checker.
    """
    if not isinstance(library, str) or not library.isidentifier():
        return False
    pipelines = Path(diffusers.__path__[0]) / "pipelines"
    return library in _LIBRARIES or (pipelines / library / "__init__.py").is_file()


def _is_plain(name: str) -> bool:
    """True if a file of that name stands in the folder itself."""
    return name == Path(name).name and "\\" not in name


def _is_class_name(kind: Any) -> bool:
    return isinstance(kind, str) and kind.isidentifier()


def check_safetensors(path: Path) -> int:
    """Number of tensors in a safetensors file.

    Raises:
        CheckpointError: it is truncated or damaged.
    """
    try:
        # Opening maps the file and compares its length with the header; no tensor is read.
        with safe_open(path, framework="pt") as file:
            return len(file.keys())
    except (SafetensorError, OSError) as cause:
        raise CheckpointError(
            f"{path}: is truncated or damaged ({first_line(cause)}); copy or download it again"
        ) from cause
