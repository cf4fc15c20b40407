"""Source of streamed packing: the denoiser inside a pipeline's folder, or a folder of its own."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import ModelMixin
from torch import nn

from mezzotint._files import at_home, read_json
from mezzotint.errors import ModelError, UsageError
from mezzotint.models import (
    check_folder,
    check_model_folder,
    check_variant,
    components,
    denoises,
    local_folder,
    quiet_libraries,
    resolve,
)
from mezzotint.models.source import (
    CONFIG_FILE,
    INDEX_FILE,
    NO_OPTIONS,
    ResolvedSource,
    SourceOptions,
)


@dataclass(frozen=True)
class Source:
    """A denoiser on disk.

    Attributes:
        folder: of the pipeline, or of the denoiser itself.
        name: what plans call it.
        component: the denoiser's folder inside the pipeline's; None for a denoiser by itself.
        parts: the pipeline's other components that have folders.
        variant: of the files of weights, where there are any.
    """

    folder: Path
    name: str
    component: str | None = None
    parts: tuple[str, ...] = ()
    variant: str | None = None

    @property
    def denoiser(self) -> Path:
        """The folder that holds its config.json and weights."""
        return self.folder / self.component if self.component else self.folder


def find_source(source: str | Path, options: SourceOptions = NO_OPTIONS) -> Source:
    """Find the denoiser of an embedded pipeline, a local folder, or a Hub id (downloaded first).

    Args:
        source: name, folder or id.
        options: revision and token of a repository, variant of its files or a folder's.

    Raises:
        ModelError: there is no such pipeline or model, it is unsafe, or it has no denoiser or
            several.
        CheckpointError: a safetensors file is truncated or damaged, or a shard missing.
        UsageError: the source has no such choice.
    """
    path = at_home(source)
    if not (path / INDEX_FILE).is_file() and (path / CONFIG_FILE).is_file():
        options.check(ResolvedSource("folder", str(path)))
        check_model_folder(path)
        check_variant(path, options.variant)
        return Source(path, path.resolve().name, variant=options.variant)
    resolved = resolve(source)
    options.check(resolved)
    folder = local_folder(resolved, options)
    check_folder(folder)
    check_variant(folder, options.variant)
    entries = components(folder / INDEX_FILE)
    found = [name for name, (library, kind) in entries.items() if _is_denoiser(library, kind)]
    if len(found) != 1:
        several = f"several denoisers ({', '.join(found)})" if found else "no denoiser"
        raise ModelError(
            f"{folder / INDEX_FILE}: lists {several}; name the folder of one model instead"
        )
    parts = tuple(name for name in entries if name != found[0])
    return Source(folder, Path(resolved.location).name, found[0], parts, options.variant)


def _is_denoiser(library: str, kind: str) -> bool:
    found = getattr(diffusers, kind, None) if library == "diffusers" else None
    return isinstance(found, type) and denoises(found)


def empty_denoiser(
    source: Source, made_in: AbstractContextManager[object] | None = None
) -> ModelMixin:
    """The model of its config.json on the meta device: names and shapes, no weights.

    Args:
        source: the denoiser's folder.
        made_in: context that makes parameters there; by default buffers are there as well.

    Raises:
        ModelError: config.json is malformed, or names no class of diffusers.
        UsageError: the model is quantized already.
    """
    path = source.denoiser / CONFIG_FILE
    config = read_json(path, ModelError)
    kind = _model_class(path, config)
    if config.get("quantization_config"):
        raise UsageError(f"{path}: the model is quantized already; start from the original")
    try:
        with quiet_libraries(), made_in or torch.device("meta"):
            model: nn.Module = kind.from_config(config)
    except Exception as cause:  # whatever a model's constructor may raise
        raise ModelError(
            f"{path}: {kind.__name__} cannot be made of it ({cause}); restore the file"
        ) from cause
    return model.requires_grad_(False).eval()


def _model_class(path: Path, config: Any) -> type[ModelMixin]:
    name = config.get("_class_name") if isinstance(config, Mapping) else None
    kind = getattr(diffusers, name, None) if isinstance(name, str) else None
    if not isinstance(kind, type) or not issubclass(kind, ModelMixin):
        raise ModelError(
            f"{path}: _class_name: is {name!r}, which is no model of diffusers "
            f"{diffusers.__version__}; name the folder of a diffusers model"
        )
    return kind
