"""Variants of a model's files of weights, such as `fp16`: parts of their names."""

from __future__ import annotations

import re
from pathlib import Path

from mezzotint.errors import UsageError
from mezzotint.models.stored_files import model_files

_VARIANT = re.compile(
    r"(?:diffusion_pytorch_model|model)\.(?P<of_file>[^.]+?)(?:-\d{5}-of-\d{5})?\.safetensors"
    r"|(?:diffusion_pytorch_model|model)\.safetensors\.index\.(?P<of_index>[^.]+)\.json"
)
"""Names of files and of lists of shards that have a variant."""


def check_variant(folder: Path, variant: str | None) -> None:
    """Refuse a variant that no model of a folder has files of.

    Raises:
        UsageError: naming the variants that there are.
    """
    if variant is None:
        return
    found = sorted({each for path in folder.rglob("*") if (each := variant_of(path.name))})
    if variant not in found:
        there = f"it has {', '.join(found)}: name that (--variant), or leave it out"
        remedy = there if found else "leave it out (--variant)"
        raise UsageError(f"variant: {folder} has no files of weights of {variant!r}; {remedy}")


def variant_of(name: str) -> str | None:
    """The variant in the name of a file of weights, or of a list of shards; None without one."""
    match = _VARIANT.fullmatch(name)
    return None if match is None else match["of_file"] or match["of_index"]


def files_of_variant(folder: Path, variant: str | None) -> frozenset[Path]:
    """Weights in a model's folder that have the variant, their list of shards included.

    Raises:
        CheckpointError: the list is malformed, or a file of it is missing.
    """
    own = {path for path in folder.iterdir() if variant and variant_of(path.name) == variant}
    return frozenset(own | set(model_files(folder, variant))) if own else frozenset()


def is_weights(name: str) -> bool:
    """True for the name of a safetensors file, and of a list of shards."""
    return name.endswith(".safetensors") or ".safetensors.index." in name


def without_variant(name: str, variant: str | None) -> str:
    """The name that a file of weights, or a list of shards, has where it is of no variant."""
    own = variant is not None and variant_of(name) == variant
    return name.replace(f".{variant}", "", 1) if own else name
