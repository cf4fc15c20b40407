"""The folder that a loaded pipeline has its own files in, beside its components."""

from __future__ import annotations

from pathlib import Path

from diffusers import DiffusionPipeline

_HOME = "_mezzotint_home"
"""Attribute of a pipeline; copies of it keep it."""


def set_home(pipe: DiffusionPipeline, folder: Path) -> None:
    """Note the folder that a pipeline was read from: the Hub's copy, or a file's configuration."""
    setattr(pipe, _HOME, folder)


def home_of(pipe: DiffusionPipeline) -> Path | None:
    """The folder of defaults, prompts and licences; None where there is none on this machine."""
    named: Path | None = getattr(pipe, _HOME, None)
    folder = named or (Path(pipe.name_or_path) if pipe.name_or_path else None)
    return folder if folder is not None and folder.is_dir() else None
