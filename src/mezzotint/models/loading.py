"""Loading a pipeline with stock diffusers, with errors that name the file at fault."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline
from diffusers.pipelines.pipeline_loading_utils import CONNECTED_PIPES_KEYS
from huggingface_hub import ModelCard, hf_hub_download, snapshot_download
from torch import nn

from mezzotint._digest_file import DigestFile, check_digest_file
from mezzotint._files import read_json
from mezzotint._tensor_digests import check_finite, verifying
from mezzotint.errors import MezzotintError, ModelError, first_line
from mezzotint.models.devices import told_of_device, usable_device
from mezzotint.models.folder import check_folder, components
from mezzotint.models.home import set_home
from mezzotint.models.own_dtype import folder_dtype
from mezzotint.models.quiet import quiet_libraries
from mezzotint.models.single_file import read_single_file
from mezzotint.models.source import (
    INDEX_FILE,
    NO_OPTIONS,
    ResolvedSource,
    SourceOptions,
    resolve,
)
from mezzotint.models.source_dtypes import note_source_dtypes
from mezzotint.models.weight_variants import check_variant

_BESIDE = (DigestFile.FILE, "generation.json", "prompts.txt", "LICENSE*", "NOTICE*")
"""Files of a pipeline's folder that diffusers does not ask for."""


def load_pipeline(
    source: str | Path,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    components: Mapping[str, nn.Module] | None = None,
    options: SourceOptions = NO_OPTIONS,
) -> DiffusionPipeline:
    """Load a pipeline by embedded name, local folder or file, or Hub id, in evaluation mode.

    Only safetensors are read: nothing is unpickled, and no code that comes with a model is run.
    Progress bars are off.

    Args:
        source: what to load.
        dtype: of everything that is floating; by default the denoiser's own, see `folder_dtype`.
        device: where to.
        components: by their names in the pipeline: some that are there already.
        options: revision, variant and other choices among the source's files.

    Raises:
        ModelError: the source is missing, incomplete or unsafe, or diffusers cannot load it.
        CheckpointError: a safetensors file is truncated or damaged, a tensor is not the one that
            was saved, or holds NaN or infinity.
        UsageError: the source has no such choice.
    """
    place = usable_device(device)
    resolved = resolve(source)
    options.check(resolved)
    if resolved.kind == "file":
        pipe, home = read_single_file(Path(resolved.location), options.config, dtype, place)
    else:
        home = local_folder(resolved, options)
        check_folder(home)
        check_variant(home, options.variant)
        _check_pipeline_class(home / INDEX_FILE)
        dtype = dtype or folder_dtype(home, place, options.variant)
        pipe = _from_pretrained(home, resolved, dtype, options.variant, components or {})
    if verifying():
        check_digest_file(home)
        for name, component in pipe.components.items():
            if isinstance(component, nn.Module):
                check_finite(component, (resolved.path or home) / name)
    note_source_dtypes(pipe, home, options.variant)
    pipe.register_to_config(_name_or_path=resolved.location)
    set_home(pipe, home)
    pipe.set_progress_bar_config(disable=True)
    with told_of_device(place):
        return pipe.to(place)


def local_folder(source: ResolvedSource, options: SourceOptions = NO_OPTIONS) -> Path:
    """The folder of a pipeline, downloaded where it is not on this machine yet.

    Raises:
        ModelError: it cannot be downloaded, its index is unsafe, or it is a single file.
    """
    if source.kind == "file":
        raise ModelError(
            f"{source.location}: is a single file, which is read as a whole; name the folder of a "
            "pipeline of diffusers"
        )
    return source.folder or download_pipeline(source.location, options)


def download_pipeline(repository: str, options: SourceOptions = NO_OPTIONS) -> Path:
    """The local copy of a Hub pipeline, downloaded where it is not there yet; safetensors only.

    Its index is checked before diffusers sees it, the rest is for `check_folder`. Files of ours
    and licences come along.

    Raises:
        ModelError: it cannot be downloaded, or its index is unsafe.
    """
    try:
        with quiet_libraries():
            access: dict[str, Any] = {"revision": options.revision, "token": options.token}
            index = Path(hf_hub_download(repository, INDEX_FILE, **access))
            components(index)
            _check_pipeline_class(index, alone=True)
            access["revision"] = index.parent.name
            snapshot_download(repository, allow_patterns=list(_BESIDE), **access)
            return Path(
                DiffusionPipeline.download(
                    repository, variant=options.variant, use_safetensors=True, **access
                )
            )
    except MezzotintError:
        raise
    except Exception as cause:  # the libraries below raise whatever they like
        remedy = (
            "it is no local folder either; check the spelling, the network connection and, for "
            "gated models, `hf auth login`"
        )
        if options.variant is not None and f"variant={options.variant}" in str(cause):
            remedy = "name another variant (--variant), or leave it out"
        raise ModelError(
            f"{repository}: cannot be downloaded ({first_line(cause)}); {remedy}"
        ) from cause


def _check_pipeline_class(index_path: Path, *, alone: bool = False) -> None:
    """Refuse what is no pipeline of diffusers, or loads others than its own components.

    Args:
        index_path: of its index.
        alone: the files beside it are not there yet.
    """
    name = read_json(index_path, ModelError)["_class_name"]
    kind = getattr(diffusers, name, None)
    if not isinstance(kind, type) or not issubclass(kind, DiffusionPipeline):
        raise ModelError(
            f"{index_path}: diffusers cannot load it (_class_name: {name!r} is no pipeline of "
            f"diffusers {diffusers.__version__}); restore the file, or update diffusers"
        )
    if getattr(kind, "_load_connected_pipes", False) and (alone or _names_pipelines(index_path)):
        raise ModelError(
            f"{index_path}: _class_name: a {name} loads other pipelines, which its README.md "
            "names; load each of them by itself"
        )


def _names_pipelines(index_path: Path) -> bool:
    """True unless the card beside an index, as diffusers reads it, names no other pipelines."""
    card = index_path.with_name("README.md")
    if not card.is_file():
        return False
    try:
        told = ModelCard.load(card).data
    except Exception:  # whatever is in that file
        return True
    return any(getattr(told, key, None) is not None for key in CONNECTED_PIPES_KEYS)


def _from_pretrained(
    folder: Path,
    source: ResolvedSource,
    dtype: torch.dtype,
    variant: str | None,
    components: Mapping[str, nn.Module],
) -> DiffusionPipeline:
    try:
        with quiet_libraries(warnings=source.kind != "embedded"):
            return DiffusionPipeline.from_pretrained(
                folder, use_safetensors=True, dtype=dtype, variant=variant, **components
            )
    except MezzotintError:  # from our own quantizer, and already clear
        raise
    except Exception as cause:  # diffusers and every component's own code may raise anything
        raise ModelError(
            f"{source.location}: diffusers cannot load it ({first_line(cause)}); weights must be "
            "safetensors and of the classes that its configuration names"
        ) from cause
