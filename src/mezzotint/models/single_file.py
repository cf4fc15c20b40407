"""Loading a pipeline from a single safetensors file, in its authors' own layout or diffusers'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import DiffusionPipeline
from diffusers.loaders import single_file_utils
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from mezzotint._files import read_json
from mezzotint._stored_dtypes import note_dtypes
from mezzotint._tensor_files import DTYPES
from mezzotint.errors import CheckpointError, MezzotintError, ModelError, first_line
from mezzotint.models.denoiser import denoises
from mezzotint.models.folder import check_folder, components
from mezzotint.models.layer_counts import TensorCounts
from mezzotint.models.own_dtype import commonest, computable
from mezzotint.models.quiet import quiet_libraries
from mezzotint.models.single_file_names import elements, holds, tensors_of
from mezzotint.models.source import CONFIG_FILE, INDEX_FILE
from mezzotint.models.stored_files import model_files

_CONFIGURATION = ("*.json", "**/*.json", "*.txt", "**/*.txt", "**/*.model")
"""Files of a repository that say what a pipeline is made of, and its tokenizers; no weights."""

_SIZES = "name the folder of a diffusers pipeline of the same sizes by config"


def read_single_file(
    file: Path, config: Path | None, dtype: torch.dtype | None, device: torch.device
) -> tuple[DiffusionPipeline, Path]:
    """The pipeline of a file, and the folder of its configuration.

    What the file does not hold, such as the text encoders beside a denoiser alone, is taken from
    the folder.

    Args:
        file: of safetensors.
        config: folder of a diffusers pipeline with the same sizes, its weights or none; by default
            diffusers' own choice for such a file, from the Hub.
        dtype: of everything that is floating; by default that of most of the denoiser.
        device: that it will be computed on.

    Raises:
        ModelError: the configuration is missing, unsafe or of another model.
        CheckpointError: the file is damaged, or lacks tensors.
    """
    tensors = _placeholders(file)
    folder = config or _usual_configuration(file, tensors)
    check_folder(folder)
    entries = components(folder / INDEX_FILE)
    models = {
        name: kind
        for name, (library, class_name) in entries.items()
        if issubclass(kind := _class(library, class_name), nn.Module)
    }
    inside = {name for name, kind in models.items() if holds(tensors, kind)}
    stored = {name: commonest(elements(tensors_of(tensors, name, models[name]))) for name in inside}
    denoisers = [name for name in models if name in inside and denoises(models[name])]
    if not denoisers:
        kinds = ", ".join(kind.__name__ for kind in models.values() if denoises(kind))
        raise ModelError(
            f"{file}: diffusers reads {kinds or 'no denoiser'} from no single file; convert it to "
            "a folder of diffusers"
        )
    _check_counts(folder, inside, len(tensors))
    dtype = dtype or computable(stored[denoisers[0]], device)
    try:
        with quiet_libraries(warnings=False):
            rest = {
                name: _from_folder(kind, folder / name, file, dtype)
                for name, kind in models.items()
                if name not in inside and name != "safety_checker"
            }
            pipe = _pipeline_class(folder).from_single_file(
                str(file), config=str(folder), local_files_only=True, dtype=dtype, **rest
            )
    except MezzotintError:
        raise
    except NotImplementedError as cause:  # torch's, of tensors without values
        raise CheckpointError(
            f"{file}: lacks tensors that the configuration in {folder} asks for; {_SIZES}"
        ) from cause
    except Exception as cause:  # diffusers and every component's own code may raise anything
        raise ModelError(
            f"{file}: diffusers cannot load it with the configuration in {folder} "
            f"({first_line(cause)}); {_SIZES}"
        ) from cause
    for name in inside:
        model = pipe.components[name]
        _check_complete(model, f"{file}: {name}")
        note_dtypes(model, dict.fromkeys(dict(model.state_dict()), stored[name]))
    return pipe, folder


def _placeholders(file: Path) -> dict[str, Tensor]:
    """Name → tensor without values, of a file's header."""
    try:
        with safe_open(file, framework="pt") as opened:
            return {
                key: _placeholder(opened.get_slice(key))
                for key in opened.keys()  # noqa: SIM118  (not a mapping)
            }
    except (SafetensorError, OSError) as cause:
        raise CheckpointError(
            f"{file}: is truncated or damaged ({first_line(cause)}); copy or download it again"
        ) from cause


def _placeholder(view: Any) -> Tensor:
    # Packages of 4 or 6 bits have no dtype in torch; nothing asks for theirs.
    dtype = DTYPES.get(view.get_dtype(), torch.uint8)
    return torch.empty(view.get_shape(), dtype=dtype, device="meta")


def _usual_configuration(file: Path, tensors: dict[str, Tensor]) -> Path:
    """The configuration that diffusers has for such a file, from the Hub or its cache."""
    usual = single_file_utils.fetch_diffusers_config(tensors)
    repository = usual["pretrained_model_name_or_path"]
    try:
        with quiet_libraries():
            return Path(snapshot_download(repository, allow_patterns=list(_CONFIGURATION)))
    except Exception as cause:  # the libraries below raise whatever they like
        raise ModelError(
            f"{file}: holds no configuration, and {repository}, which looks like it, cannot be "
            f"downloaded ({first_line(cause)}); {_SIZES}"
        ) from cause


def _class(library: str, name: str) -> type:
    """The class of a component, which may stand in a pipeline's own module."""
    module = {"diffusers": diffusers, "transformers": transformers}.get(library)
    if module is None:
        module = getattr(diffusers.pipelines, library, None)
    found = getattr(module, name, None)
    if not isinstance(found, type):
        raise ModelError(f"{library}.{name}: is no class of this version; update the library")
    return found


def _check_counts(folder: Path, names: set[str], tensors: int) -> None:
    """Refuse a configuration of more layers than the file has tensors: none would be built."""
    counts = TensorCounts()
    for name in names:
        path = folder / name / CONFIG_FILE
        counts.configured(path, read_json(path, ModelError))
        counts.stored(path, tensors)
    counts.check()


def _from_folder(kind: type[Any], folder: Path, file: Path, dtype: torch.dtype) -> nn.Module:
    if not model_files(folder):
        raise ModelError(
            f"{file}: holds no {folder.name}, and there are no weights of it in {folder}; name the "
            "folder of a whole pipeline by config"
        )
    model: nn.Module = kind.from_pretrained(str(folder), use_safetensors=True, dtype=dtype)
    return model


def _pipeline_class(folder: Path) -> type[Any]:
    name = read_json(folder / INDEX_FILE, ModelError)["_class_name"]
    kind = getattr(diffusers, name, None)
    if not isinstance(kind, type) or not hasattr(kind, "from_single_file"):
        raise ModelError(
            f"{folder / INDEX_FILE}: _class_name: {name!r} reads no single files; convert the "
            "file to a folder of diffusers"
        )
    return kind


def _check_complete(model: nn.Module, what: str) -> None:
    """Refuse a model of which the file lacks tensors, where diffusers left some without values."""
    missing = [name for name, tensor in model.state_dict().items() if tensor.is_meta]
    if missing:
        raise CheckpointError(
            f"{what}: the file lacks {len(missing)} tensor(s) of it, such as {missing[0]}; {_SIZES}"
        )
