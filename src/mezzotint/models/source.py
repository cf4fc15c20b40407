"""Sources of a pipeline: shipped with this package, a local folder, or the Hub."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

from mezzotint._files import at_home
from mezzotint.errors import ModelError

INDEX_FILE = "model_index.json"
"""List of components, which makes a folder a diffusers pipeline."""

CONFIG_FILE = "config.json"
"""The configuration of a single model."""

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclass(frozen=True)
class ResolvedSource:
    """A pipeline's place: `location` is a folder, or a repository id of the Hugging Face Hub."""

    kind: Literal["embedded", "folder", "hub"]
    location: str

    @property
    def folder(self) -> Path | None:
        """The local folder; None for the Hub."""
        return None if self.kind == "hub" else Path(self.location)


def list_embedded() -> tuple[str, ...]:
    """Names of the pipelines that ship with this package."""
    zoo = _zoo()
    if not zoo.is_dir():
        return ()
    return tuple(sorted(path.parent.name for path in zoo.glob(f"*/{INDEX_FILE}")))


def resolve(source: str | Path) -> ResolvedSource:
    """Find a pipeline by embedded name, local folder or Hub id (`owner/name`), tried in that order.

    Write `./name` for a local folder that is called like an embedded pipeline. Nothing is
    downloaded.

    Raises:
        ModelError: there is no such folder, or it holds no pipeline.
    """
    if isinstance(source, str) and source in list_embedded():
        return ResolvedSource("embedded", str(_zoo() / source))
    path = at_home(source)
    if path.is_dir():
        _check_is_pipeline(path)
        return ResolvedSource("folder", str(path))
    if path.exists():
        raise ModelError(f"{source}: is a file; name the pipeline's folder")
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


def _suggestion(name: str) -> str:
    close = difflib.get_close_matches(name, list_embedded(), n=1)
    return f"did you mean {close[0]!r}? Otherwise use {_known()}" if close else f"use {_known()}"


def _known() -> str:
    names = ", ".join(list_embedded())
    embedded = f"an embedded pipeline ({names}), " if names else ""
    return f"{embedded}a local folder or a Hub id such as 'owner/name'"


def _zoo() -> Path:
    return Path(str(resources.files("mezzotint"))) / "zoo"
