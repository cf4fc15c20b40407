"""Sources of a pipeline: shipped with this package, a local folder or file, or the Hub."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Literal

from mezzotint._files import at_home
from mezzotint.errors import ModelError, UsageError

INDEX_FILE = "model_index.json"
"""List of components, which makes a folder a diffusers pipeline."""

CONFIG_FILE = "config.json"
"""The configuration of a single model."""

WEIGHTS_SUFFIX = ".safetensors"
"""Ending of a single file that holds a whole checkpoint."""

_PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")
"""Endings of files of weights that are read by running what stands in them."""

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclass(frozen=True)
class ResolvedSource:
    """A pipeline's place: a folder, a safetensors file, or a repository id of the Hub."""

    kind: Literal["embedded", "folder", "file", "hub"]
    location: str

    @property
    def path(self) -> Path | None:
        """The local folder or file; None for the Hub."""
        return None if self.kind == "hub" else Path(self.location)

    @property
    def folder(self) -> Path | None:
        """The local folder; None for a file, and for the Hub."""
        return None if self.kind == "file" else self.path


@dataclass(frozen=True)
class SourceOptions:
    """A choice among the files of a source.

    Attributes:
        revision: branch, tag or commit of a repository of the Hub.
        variant: part of the names of weights' files, such as `fp16`.
        token: for repositories of the Hub that are not public, in the place of the stored login.
        config: folder of a diffusers pipeline, whose configuration a single file is read by, and
            which has the components that the file lacks.
    """

    revision: str | None = None
    variant: str | None = None
    token: str | None = field(default=None, repr=False)
    config: Path | None = None

    def check(self, source: ResolvedSource) -> None:
        """Raise UsageError where the source has no such choice, or the folder is no pipeline's."""
        repository, folder = source.kind == "hub", source.kind in ("hub", "folder")
        for name, value, fits, of in (
            ("revision", self.revision, repository, "a repository of the Hub"),
            ("token", self.token, repository, "a repository of the Hub"),
            ("variant", self.variant, folder, "a repository of the Hub, or a folder"),
            ("config", self.config, source.kind == "file", "a single file of weights"),
        ):
            if value is not None and not fits:
                raise UsageError(f"{name}: {source.location} is not {of}; leave it out")
        if self.config is not None and not (self.config / INDEX_FILE).is_file():
            raise UsageError(
                f"config: {self.config} has no {INDEX_FILE}; name the folder of a diffusers "
                "pipeline of the same sizes (--config)"
            )


NO_OPTIONS = SourceOptions()
"""The files that a source has without any choice."""


def list_embedded() -> tuple[str, ...]:
    """Names of the pipelines that ship with this package."""
    zoo = _zoo()
    if not zoo.is_dir():
        return ()
    return tuple(sorted(path.parent.name for path in zoo.glob(f"*/{INDEX_FILE}")))


def resolve(source: str | Path) -> ResolvedSource:
    """Find a pipeline by embedded name, local folder or file, or Hub id, tried in that order.

    Write `./name` for a local folder that is called like an embedded pipeline. Nothing is
    downloaded.

    Raises:
        ModelError: there is no such folder, it holds no pipeline, or the file is no safetensors.
        UsageError: it is neither text nor a path.
    """
    if isinstance(source, str) and source in list_embedded():
        return ResolvedSource("embedded", str(_zoo() / source))
    path = at_home(source)
    if path.is_dir():
        _check_is_pipeline(path)
        return ResolvedSource("folder", str(path))
    check_no_pickle(path)
    if path.exists():
        if path.suffix.lower() != WEIGHTS_SUFFIX or not path.is_file():
            raise ModelError(
                f"{source}: is a file; name the pipeline's folder, or one of {WEIGHTS_SUFFIX}"
            )
        return ResolvedSource("file", str(path))
    if path.suffix.lower() == WEIGHTS_SUFFIX:
        raise ModelError(f"{source}: no such file; check the spelling")
    if isinstance(source, str) and _HUB_ID.fullmatch(source):
        return ResolvedSource("hub", source)
    raise ModelError(f"{source}: no such folder; {_suggestion(str(source))}")


def _check_is_pipeline(folder: Path) -> None:
    if (folder / INDEX_FILE).is_file():
        return
    if (folder / CONFIG_FILE).is_file():
        remedy = "it holds a single model; name the folder of the whole pipeline"
    else:
        remedy = f"name a folder saved by a pipeline's save_pretrained, or {_known()}"
    raise ModelError(f"{folder}: has no {INDEX_FILE}; {remedy}")


def check_no_pickle(path: Path) -> None:
    """Refuse, with ModelError, a file whose name says that Python code may stand in it."""
    if path.suffix.lower() in _PICKLES:
        raise ModelError(
            f"{path}: is a pickle, and reading one runs whatever code stands in it; convert it to "
            f"{WEIGHTS_SUFFIX} where that cannot harm, or look for a copy that its author has "
            "converted"
        )


def _suggestion(name: str) -> str:
    close = difflib.get_close_matches(name, list_embedded(), n=1)
    return f"did you mean {close[0]!r}? Otherwise use {_known()}" if close else f"use {_known()}"


def _known() -> str:
    names = ", ".join(list_embedded())
    embedded = f"an embedded pipeline ({names}), " if names else ""
    return f"{embedded}a local folder or a Hub id such as 'owner/name'"


def _zoo() -> Path:
    return Path(str(resources.files("mezzotint"))) / "zoo"
