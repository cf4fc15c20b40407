"""transformers' quantizer interface: packed text encoders load, float ones are packed."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers.quantizers.base import HfQuantizer

from mezzotint._stored_dtypes import note_dtypes, read_dtypes
from mezzotint.checkpoint.diffusers.config import MezzotintConfig, MezzotintMethod
from mezzotint.checkpoint.diffusers.contents import check_names, check_type
from mezzotint.checkpoint.loading import ModelLoading, refuse_adapted, refuse_disk
from mezzotint.checkpoint.transformers.saving import override_saving, restore_saving
from mezzotint.plan import Plan
from mezzotint.runtime import dequantize_module, pack_module, packed_layers

_LOADED = "_is_hf_initialized"
"""Attribute that transformers gives to tensors which need no random values any more."""


class MezzotintTextQuantizer(HfQuantizer):  # type: ignore[misc]
    """Loads packed checkpoints of transformers' models, and packs float ones once they are there.

    Attributes:
        loading: of the model, with its plan.
    """

    quantization_config: MezzotintConfig

    def __init__(self, quantization_config: MezzotintConfig, **kwargs: Any) -> None:
        super().__init__(quantization_config, **kwargs)
        self.loading = ModelLoading(packed=bool(kwargs.get("pre_quantized", True)))
        self._expected: dict[str, Tensor] = {}

    @property
    def plan(self) -> Plan | None:
        """Choice of every layer; None until a model is loaded."""
        return self.loading.plan

    def is_serializable(self) -> bool:
        """Packed models are saved with `save_pretrained`."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Adapters over packed layers are trained; packed weights themselves have no gradient."""
        return True

    @property
    def is_compileable(self) -> bool:
        """Every kernel is made of traceable torch operations."""
        return True

    def validate_environment(self, *args: Any, device_map: Any = None, **kwargs: Any) -> None:
        """Refuse to leave layers on disk."""
        refuse_disk(device_map)

    def get_state_dict_and_metadata(self, model: nn.Module) -> tuple[None, dict[str, Any]]:
        """Refuse to save a model with an adapter loaded; leave the tensors to transformers.

        Raises:
            UsageError: naming the first adapted layer and the remedy.
        """
        refuse_adapted(model.state_dict())
        return None, {}

    def param_needs_quantization(self, model: nn.Module, param_name: str, **kwargs: Any) -> bool:
        """Packed tensors are compared with the plan here, by shape and by dtype."""
        return param_name in self._expected

    def _process_model_before_weight_loading(
        self, model: nn.Module, checkpoint_files: list[str] | None = None, **kwargs: Any
    ) -> None:
        self.loading.files = [Path(file) for file in checkpoint_files or ()]
        plan = self.loading.begin(model, self.quantization_config)
        # A new one: the caller's may serve for another model.
        self.quantization_config = MezzotintConfig(plan)
        for name, layer in packed_layers(model).items():
            state = layer.state_dict(prefix=f"{name}.", keep_vars=True)
            self._expected |= {n: t for n, t in state.items() if n != f"{name}.bias"}

    def _process_model_after_weight_loading(self, model: nn.Module, **kwargs: Any) -> nn.Module:
        assert self.plan is not None
        if self.loading.packed:
            self._check_tensors(model)
        else:
            pack_module(model, self.plan)
        self.loading.finish(model)
        note_dtypes(model, read_dtypes(self.loading.files))
        override_saving(model)
        return model

    def _check_tensors(self, model: nn.Module) -> None:
        """Refuse a checkpoint that lacks a tensor, or has one of another shape or dtype.

        transformers gives random values to what is missing.
        """
        state = model.state_dict(keep_vars=True)
        ignored: Any = getattr(model, "_keys_to_ignore_on_load_missing", None) or ()
        missing = [
            name
            for name, tensor in state.items()
            if not hasattr(tensor, _LOADED) and not any(re.search(each, name) for each in ignored)
        ]
        check_names(missing, f"{self.loading.source}: lacks")
        for name, expected in self._expected.items():
            check_type(f"{self.loading.source}: {name}", state[name], expected)

    def _dequantize(self, model: Any, dtype: torch.dtype | None = None) -> nn.Module:
        dequantize_module(model, None if dtype is None else lambda name: dtype)
        restore_saving(model)
        return cast("nn.Module", model)


def mark_transformers_model(model: Any, plan: Plan) -> None:
    """Tell transformers that `model`, packed in memory, is quantized by us and can be saved."""
    quantizer = MezzotintTextQuantizer(MezzotintConfig(plan), pre_quantized=True)
    quantizer.loading.plan = plan
    # A new one: the floating original may share it.
    model.config = copy.deepcopy(model.config)
    model.config.quantization_config = quantizer.quantization_config
    model.hf_quantizer = quantizer
    model.is_quantized = True
    model.quantization_method = MezzotintMethod.MEZZOTINT
    override_saving(model)
