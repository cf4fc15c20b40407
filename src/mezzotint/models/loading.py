"""Loading a pipeline with stock diffusers, with errors that name the file at fault."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import diffusers
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from huggingface_hub import hf_hub_download
from torch import nn
from transformers.utils import logging as transformers_logging

from mezzotint._digest_file import check_digest_file
from mezzotint._files import read_json
from mezzotint._tensor_digests import check_finite, verifying
from mezzotint.errors import MezzotintError, ModelError, first_line
from mezzotint.models.folder import check_folder, components
from mezzotint.models.source import INDEX_FILE, ResolvedSource, resolve
from mezzotint.models.source_dtypes import note_source_dtypes


def load_pipeline(
    source: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    components: Mapping[str, nn.Module] | None = None,
) -> DiffusionPipeline:
    """Load a pipeline by embedded name, local folder or Hub id, in evaluation mode.

    Only safetensors are read: nothing is unpickled, and no code that comes with a model is run.
    Progress bars are off.

    Args:
        source: what to load.
        dtype: of everything that is floating.
        device: where to.
        components: by their names in the pipeline: some that are there already.

    Raises:
        ModelError: the source is missing, incomplete or unsafe, or diffusers cannot load it.
        CheckpointError: a safetensors file is truncated or damaged, a tensor is not the one that
            was saved, or holds NaN or infinity.
    """
    place = usable_device(device)
    resolved = resolve(source)
    folder = resolved.folder or download_pipeline(resolved.location)
    check_folder(folder)
    _check_pipeline_class(folder / INDEX_FILE)
    pipe = _from_pretrained(folder, resolved, dtype, components or {})
    if verifying():
        check_digest_file(folder)
        for name, component in pipe.components.items():
            if isinstance(component, nn.Module):
                check_finite(component, folder / name)
    note_source_dtypes(pipe, folder)
    pipe.set_progress_bar_config(disable=True)
    try:
        return pipe.to(place)
    except (RuntimeError, AssertionError) as cause:
        raise ModelError(f"{device}: cannot be used ({first_line(cause)})") from cause


def usable_device(device: torch.device | str) -> torch.device:
    """A device that tensors can be on, and are computed on.

    Raises:
        ModelError: there is none of that name here, or it is meta, whose tensors have no values.
    """
    try:
        place = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as cause:
        raise ModelError(f"{device}: cannot be used ({first_line(cause)})") from cause
    if place.type == "meta":
        raise ModelError(f"{device}: cannot be used (its tensors have no values); use cpu or cuda")
    return place


def download_pipeline(repository: str) -> Path:
    """The local copy of a Hub pipeline, downloaded where it is not there yet; safetensors only.

    Its index is checked before diffusers sees it, the rest is for `check_folder`.

    Raises:
        ModelError: it cannot be downloaded, or its index is unsafe.
    """
    try:
        with quiet_libraries():
            index = Path(hf_hub_download(repository, INDEX_FILE))
            components(index)
            _check_pipeline_class(index)
            commit = index.parent.name
            return Path(
                DiffusionPipeline.download(repository, revision=commit, use_safetensors=True)
            )
    except MezzotintError:
        raise
    except Exception as cause:  # the libraries below raise whatever they like
        raise ModelError(
            f"{repository}: cannot be downloaded ({first_line(cause)}); it is no local folder "
            "either; check the spelling, the network connection and, for gated models, "
            "`hf auth login`"
        ) from cause


def _check_pipeline_class(index_path: Path) -> None:
    """Refuse what is no pipeline of diffusers, or loads others than its own components."""
    name = read_json(index_path, ModelError)["_class_name"]
    kind = getattr(diffusers, name, None)
    if not isinstance(kind, type) or not issubclass(kind, DiffusionPipeline):
        raise ModelError(
            f"{index_path}: diffusers cannot load it (_class_name: {name!r} is no pipeline of "
            f"diffusers {diffusers.__version__}); restore the file, or update diffusers"
        )
    if getattr(kind, "_load_connected_pipes", False):
        raise ModelError(
            f"{index_path}: _class_name: a {name} loads other pipelines, which its README.md "
            "names; load each of them by itself"
        )


def _from_pretrained(
    folder: Path, source: ResolvedSource, dtype: torch.dtype, components: Mapping[str, nn.Module]
) -> DiffusionPipeline:
    try:
        with quiet_libraries(warnings=source.kind != "embedded"):
            pipe = DiffusionPipeline.from_pretrained(
                folder, use_safetensors=True, dtype=dtype, **components
            )
    except MezzotintError:  # from our own quantizer, and already clear
        raise
    except Exception as cause:  # diffusers and every component's own code may raise anything
        raise ModelError(
            f"{source.location}: diffusers cannot load it ({first_line(cause)}); weights must be "
            "safetensors and of the classes that its configuration names"
        ) from cause
    pipe.register_to_config(_name_or_path=source.location)
    return pipe


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
