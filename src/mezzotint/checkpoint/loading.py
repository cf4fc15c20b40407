"""A model that diffusers or transformers is loading: its plan, its files, its checks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mezzotint._digest_file import checked_digests
from mezzotint._tensor_digests import check_digests, check_finite, file_digests, verifying
from mezzotint.checkpoint.diffusers.config import MezzotintConfig
from mezzotint.checkpoint.diffusers.contents import check_layer
from mezzotint.errors import CheckpointError, FormatError, PlanError, UsageError
from mezzotint.plan import Plan
from mezzotint.runtime import (
    Calibration,
    PackedLayer,
    check_calibration,
    check_plan,
    read_timesteps,
    replace_layer,
    round_attention,
    share_token_check,
    unfilled_layer,
    use_fast_attention,
)


class ModelLoading:
    """Knowledge of one model while a library loads it; both libraries' quantizers share it.

    Attributes:
        packed: True for a packed checkpoint; False where a floating one is packed on its way.
        files: safetensors files that the model is read from.
        plan: choice of every layer; None until the model is there.
    """

    def __init__(self, *, packed: bool) -> None:
        self.packed = packed
        self.files: list[Path] = []
        self.plan: Plan | None = None
        self._digests: dict[str, str] | None = None

    @property
    def source(self) -> str:
        """The file, or the folder of the shards."""
        if not self.files:
            return "the checkpoint"
        return str(self.files[0] if len(self.files) == 1 else self.files[0].parent)

    def begin(self, model: nn.Module, config: MezzotintConfig) -> Plan:
        """Settle the plan; of a packed checkpoint, put empty packed layers into the model.

        Empty layers stand on the meta device until their tensors arrive, so that the floating
        model is never materialised.

        Raises:
            CheckpointError: a packed checkpoint has no plan.
            PlanError: the plan is malformed, or of another model; or it needs calibration, and a
                floating checkpoint is loaded with it.
            UsageError: a width is out of its domain, or a pattern names no layer.
        """
        self.plan = self._stored(model, config) if self.packed else _new(model, config)
        if self.packed:
            for name, choice in self.plan.quantized.items():
                with torch.device("meta"):
                    empty = unfilled_layer(model.get_submodule(name), choice)
                replace_layer(model, name, empty)
        return self.plan

    def _stored(self, model: nn.Module, config: MezzotintConfig) -> Plan:
        file = self.files[0].with_name("config.json") if self.files else Path("config.json")
        if config.plan is None:
            raise CheckpointError(f"{file}: quantization_config: has no plan; save the model again")
        if config.sha256 is not None:
            self._digests = checked_digests(config.sha256, f"{file}: quantization_config: sha256")
        plan = config.plan_for(model, f"{file}: quantization_config")
        try:
            check_plan(model, plan)
        except PlanError as cause:
            raise PlanError(f"{file}: {cause}") from cause
        return plan

    def finish(self, model: nn.Module) -> None:
        """Check a model that has all its tensors, and prepare it to be run.

        Raises:
            UsageError: a layer was not packed.
            CheckpointError: a tensor is not the one that was saved, holds values that no
                quantization can have written, or NaN or infinity.
        """
        assert self.plan is not None
        for name in self.plan.quantized:
            layer = model.get_submodule(name)
            # Options such as offload_state_dict go around what packs layers one by one.
            if not isinstance(layer, PackedLayer) or any(b.is_meta for b in layer.buffers()):
                raise UsageError(f"layer {name} was not packed; load without offloading options")
            check_layer(self.source, name, layer)
        if verifying():
            self._verify(model)
        read_timesteps(model)
        share_token_check(model)
        round_attention(model, self.plan.simulated_attention)
        if self.plan.quantized:
            use_fast_attention(model)

    def _verify(self, model: nn.Module) -> None:
        """Compare a packed checkpoint with its digests; refuse NaN and infinity without any."""
        if self.packed and self._digests is not None:
            found: dict[str, str] = {}
            for file in self.files:
                found |= file_digests(file)
            check_digests(found, self._digests, self.source)
        else:
            check_finite(model, self.source)


def _new(model: nn.Module, config: MezzotintConfig) -> Plan:
    plan = config.plan_for(model)
    check_plan(model, plan)
    for name in plan.quantized:
        try:
            check_calibration(name, model.get_submodule(name), plan, Calibration())
        except FormatError as cause:
            remedy = "" if name in plan.trained else "; load the model first, then quantize it"
            raise PlanError(f"{cause}{remedy}") from cause
    return plan


def refuse_adapted(names: Iterable[str]) -> None:
    """Refuse to save a model with an adapter loaded: its names would fit no plan.

    Args:
        names: of the model's tensors.

    Raises:
        UsageError: naming the first adapted layer and the remedy.
    """
    adapted = next((n.partition(".base_layer.")[0] for n in names if ".base_layer." in n), None)
    if adapted is not None:
        raise UsageError(
            f"layer {adapted} has an adapter loaded; call unload_lora_weights() before saving the "
            "model, and save_lora_adapter() for the adapter by itself"
        )


def refuse_disk(device_map: Any) -> None:
    """Refuse to leave layers on disk: libraries would not pack them, nor read packed ones.

    Raises:
        UsageError: with the remedy.
    """
    if isinstance(device_map, dict) and "disk" in device_map.values():
        raise UsageError(
            "device_map: puts layers on disk, where packed ones cannot be read from; load without "
            "it and call accelerate.disk_offload(model, folder, offload_buffers=True)"
        )
