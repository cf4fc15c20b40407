"""LoRA files that are merged into a pipeline's weights before anything else is done with it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

from diffusers import DiffusionPipeline
from torch import nn

from mezzotint._files import at_home
from mezzotint._stored_dtypes import round_as_stored
from mezzotint.errors import ModelError, UsageError, first_line
from mezzotint.models.folder import check_safetensors
from mezzotint.models.quiet import quiet_libraries
from mezzotint.models.source import WEIGHTS_SUFFIX, check_no_pickle
from mezzotint.plan import Plan

_MERGED = "_mezzotint_loras"
"""Attribute of a pipeline: what was merged into it; copies of it keep that."""

_ADAPTER = "merged"


@dataclass(frozen=True)
class LoraFile:
    """A LoRA on this machine, and how strongly it is merged.

    Attributes:
        path: of the safetensors file.
        weight: its factor; 1 merges it as it was trained.
    """

    path: Path
    weight: float = 1.0

    def __post_init__(self) -> None:
        check_no_pickle(self.path)
        if not self.path.is_file() or self.path.suffix.lower() != WEIGHTS_SUFFIX:
            raise ModelError(f"{self.path}: is no {WEIGHTS_SUFFIX} file; name the LoRA's own")
        check_safetensors(self.path)
        if not math.isfinite(self.weight):
            raise UsageError(f"{self.path}: weight: {self.weight} is no number to multiply by")

    @classmethod
    def of(cls, named: str | Path | LoraFile) -> LoraFile:
        """The file that `FILE` or `FILE:WEIGHT` names.

        Raises:
            ModelError: there is no such file, or it is no safetensors.
            CheckpointError: it is truncated or damaged.
            UsageError: the weight is not finite.
        """
        if isinstance(named, LoraFile):
            return named
        path, colon, weight = str(at_home(named)).rpartition(":")
        try:
            return cls(at_home(path), float(weight)) if colon else cls(at_home(weight))
        except ValueError:  # no number, and the colon part of the name
            return cls(at_home(named))

    def to_dict(self) -> dict[str, str | float]:
        """JSON values: the file's name and digest, and the weight."""
        with self.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"file": self.path.name, "sha256": digest, "weight": self.weight}


LoraName: TypeAlias = str | Path | LoraFile
"""A file of a LoRA, and its weight where that is not 1."""


def lora_files(named: LoraName | Sequence[LoraName] | None) -> tuple[LoraFile, ...]:
    """One file, several, or none.

    Raises:
        ModelError, CheckpointError, UsageError: as `LoraFile.of`.
    """
    if named is None:
        return ()
    several = [named] if isinstance(named, LoraName) else named
    if not isinstance(several, Sequence):
        raise UsageError(f"lora: is a {type(several).__name__}; name a file, or a list of them")
    return tuple(LoraFile.of(each) for each in several)


def merge_loras(pipe: DiffusionPipeline, loras: Sequence[LoraFile]) -> None:
    """Add LoRAs to the weights of a floating pipeline, in place, one after another.

    Sums are rounded to the dtypes that the checkpoint has, as if it had been saved after the merge.

    Raises:
        UsageError: the pipeline takes none, or peft is not installed.
        ModelError: a file is damaged, or holds nothing for this pipeline.
    """
    if not loras:
        return
    kind = type(pipe).__name__
    if not hasattr(pipe, "load_lora_weights"):
        raise UsageError(f"lora: {kind} takes none; leave it out")
    if find_spec("peft") is None:
        raise UsageError("lora: peft is not installed; run `pip install mezzotint[lora]`")
    for lora in loras:
        _merge(pipe, lora)
    for part in pipe.components.values():
        if isinstance(part, nn.Module):
            round_as_stored(part)
    setattr(pipe, _MERGED, (*merged_loras(pipe), *(lora.to_dict() for lora in loras)))


def merged_loras(pipe: DiffusionPipeline) -> tuple[dict[str, str | float], ...]:
    """LoRAs that were merged into a pipeline, as JSON values."""
    return getattr(pipe, _MERGED, ())


def check_loras(plan: Plan, merged: Sequence[Mapping[str, str | float]]) -> None:
    """Refuse a plan that was made with LoRAs merged which a model at hand has not.

    Args:
        plan: its context names what was merged.
        merged: into the model, as of `merged_loras`.

    Raises:
        UsageError: naming them.
    """
    wanted = plan.context.get("loras") or []
    if wanted and [dict(each) for each in merged] != wanted:
        names = ", ".join(f"{each['file']}:{each['weight']:g}" for each in wanted)
        raise UsageError(
            f"plan: was made with {names} merged into the weights; load the model with the same "
            "(lora=, --lora), or take loras out of the plan's context"
        )


def _merge(pipe: DiffusionPipeline, lora: LoraFile) -> None:
    kind, path = type(pipe).__name__, lora.path
    try:
        with quiet_libraries(warnings=False):
            pipe.load_lora_weights(
                str(path.parent),
                weight_name=path.name,
                adapter_name=_ADAPTER,
                local_files_only=True,
                use_safetensors=True,
            )
            adapted = list(pipe.get_list_adapters())
            if adapted:
                pipe.fuse_lora(components=adapted, lora_scale=lora.weight, safe_fusing=True)
                pipe.unload_lora_weights()
    except Exception as cause:  # diffusers and peft may raise anything
        raise ModelError(
            f"{path}: cannot be merged into a {kind} ({first_line(cause)}); is it a LoRA of that "
            "architecture?"
        ) from cause
    if not adapted:
        raise ModelError(f"{path}: holds nothing for a {kind}; name a LoRA of that architecture")
