"""diffusers' quantizer interface: packed layers are created while a checkpoint loads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from diffusers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING, AUTO_QUANTIZER_MAPPING
from diffusers.quantizers.base import DiffusersQuantizer
from torch import Tensor, nn

from mezzotint._stored_dtypes import note_dtypes, read_dtypes
from mezzotint.checkpoint.diffusers.config import MezzotintConfig, MezzotintMethod
from mezzotint.checkpoint.diffusers.contents import check_names, check_type
from mezzotint.checkpoint.diffusers.overrides import override_methods, restore_methods
from mezzotint.checkpoint.loading import ModelLoading, refuse_adapted, refuse_disk
from mezzotint.errors import FormatError
from mezzotint.plan import Plan
from mezzotint.runtime import (
    Calibration,
    PackedLayer,
    dequantize_module,
    pack_weight,
    replace_layer,
)


class MezzotintQuantizer(DiffusersQuantizer):  # type: ignore[misc]
    """Loads packed checkpoints, and packs float ones layer by layer as they arrive.

    A packed checkpoint stores integers only, under the names of the packed layers' buffers, so
    casting to `torch_dtype` cannot touch scales or codes; the layers stand on the meta device until
    their tensors arrive, so the float model is never materialised.

    Attributes:
        loading: of the model, with its plan.
    """

    quantization_config: MezzotintConfig
    use_keep_in_fp32_modules = True
    required_packages: ClassVar[list[str]] = ["mezzotint"]

    def __init__(self, quantization_config: MezzotintConfig, **kwargs: Any) -> None:
        super().__init__(quantization_config, **kwargs)
        self.loading = ModelLoading(packed=bool(kwargs.get("pre_quantized", True)))
        self._floating = torch.get_default_dtype()

    @property
    def plan(self) -> Plan | None:
        """Choice of every layer; None until a model is loaded."""
        return self.loading.plan

    @property
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

    def update_torch_dtype(self, torch_dtype: torch.dtype | None) -> torch.dtype:
        """Record the dtype to which diffusers casts floating tensors where none is given."""
        self._floating = torch.get_default_dtype() if torch_dtype is None else torch_dtype
        return self._floating

    def get_state_dict_and_metadata(
        self, state_dict: dict[str, Any], safe_serialization: bool = False
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Refuse to save a model with an adapter loaded: its names would fit no plan.

        Raises:
            UsageError: naming the first adapted layer and the remedy.
        """
        refuse_adapted(state_dict)
        return state_dict, {}

    def maybe_update_loaded_keys(
        self, loaded_keys: list[str], checkpoint_files: list[str]
    ) -> list[str]:
        """Remember the files, to name them in errors; of a single file diffusers does not tell."""
        self.loading.files = [Path(file) for file in checkpoint_files]
        return loaded_keys

    def _process_model_before_weight_loading(
        self, model: nn.Module, state_dict: Mapping[str, Tensor] | None = None, **kwargs: Any
    ) -> None:
        if state_dict is not None:
            # A single file: diffusers takes any for quantized, and only floating ones are read.
            self.pre_quantized = self.loading.packed = False
        plan = self.loading.begin(model, self.quantization_config)
        # A new one: the caller's may serve for another model.
        self.quantization_config = MezzotintConfig(plan)
        register_config(model, self.quantization_config)

    def update_missing_keys(
        self, model: nn.Module, missing_keys: list[str], prefix: str
    ) -> list[str]:
        """Refuse a checkpoint without all of its packed tensors, or without a weight to pack.

        diffusers only warns of missing tensors, and leaves them uninitialised.
        """
        assert self.plan is not None
        if self.pre_quantized:
            check_names(missing_keys, f"{self.loading.source}: lacks")
        wanted = {f"{name}.weight" for name in self.plan.quantized}
        check_names(wanted.intersection(missing_keys), f"{self.loading.source}: lacks")
        return missing_keys

    def check_if_quantized_param(
        self, model: nn.Module, param_value: Tensor, param_name: str, *args: Any, **kwargs: Any
    ) -> bool:
        """Packed tensors need a check on arrival; float weights in the plan are packed."""
        name = self._layer_of(param_name)
        return name is not None and param_name != f"{name}.bias"

    def _layer_of(self, param_name: str) -> str | None:
        """The planned layer that a tensor belongs to, be it the layer's own or of a part of it."""
        assert self.plan is not None
        name = param_name.rpartition(".")[0]
        while name:
            if name in self.plan.choices and self.plan[name].quantized:
                return name
            name = name.rpartition(".")[0]
        return None

    def create_quantized_param(
        self,
        model: nn.Module,
        param_value: Tensor,
        param_name: str,
        target_device: Any,
        state_dict: Mapping[str, Tensor],
        unexpected_keys: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Put one packed tensor in place, or pack one float weight."""
        name = self._layer_of(param_name)
        assert name is not None
        layer = model.get_submodule(name)
        if isinstance(layer, PackedLayer):
            check_names(unexpected_keys or [], f"{self.loading.source}: holds, against its plan,")
            # As stored: the value may have been cast to the dtype expected.
            stored = state_dict[param_name]
            check_type(f"{self.loading.source}: {param_name}", stored, model.get_buffer(param_name))
            holder, _, tensor = param_name.rpartition(".")
            model.get_submodule(holder).register_buffer(tensor, stored.to(target_device))
            return
        assert self.plan is not None
        weight = param_value.to(target_device)
        try:
            packed = pack_weight(name, layer, weight, self.plan, Calibration())
        except FormatError as cause:
            raise FormatError(f"{self.loading.source}: {cause}") from cause
        if isinstance(layer.bias, nn.Parameter):
            # It may have arrived before the weight, or be still to come.
            layer.bias.requires_grad_(False)
            packed.bias = layer.bias
        replace_layer(model, name, packed)

    def check_quantized_param_shape(
        self, param_name: str, current_param: Tensor, loaded_param: Tensor
    ) -> None:
        """Refuse a packed tensor whose shape is not the plan's."""
        check_type(f"{self.loading.source}: {param_name}", loaded_param, current_param)

    def _process_model_after_weight_loading(self, model: nn.Module, **kwargs: Any) -> nn.Module:
        self.loading.finish(model)
        self._note_dtypes(model)
        override_methods(model)
        model.register_to_config(_pre_quantization_dtype=self._floating)  # type: ignore[operator]
        return model

    def _note_dtypes(self, model: Any) -> None:
        """Note in which dtypes the files hold what stays floating; a single file does not tell."""
        dtypes = read_dtypes(file for file in self.loading.files if file.suffix == ".safetensors")
        model._fix_state_dict_keys_on_load(dtypes)
        note_dtypes(model, dtypes)

    def _dequantize(self, model: Any) -> nn.Module:
        config = model.config
        ours = {"quantization_config", "_pre_quantization_dtype"}
        kept = {key: value for key, value in config.items() if key not in ours}
        model._internal_dict = type(config)(kept)
        dtype, in_fp32 = model.dtype, set(model._keep_in_fp32_modules or ())

        def dtype_of(layer: str) -> torch.dtype:
            return torch.float32 if in_fp32.intersection(layer.split(".")) else dtype

        dequantize_module(model, dtype_of)
        restore_methods(model)
        return cast("nn.Module", model)


def register_config(model: Any, config: MezzotintConfig) -> None:
    """Make `save_pretrained` write the plan into config.json."""
    model.register_to_config(quantization_config=config)


def mark_diffusers_model(model: Any, plan: Plan) -> None:
    """Tell diffusers that `model`, packed in memory, is quantized by us and can be saved."""
    quantizer = MezzotintQuantizer(MezzotintConfig(plan), pre_quantized=True)
    quantizer.loading.plan = plan
    register_config(model, quantizer.quantization_config)
    model.register_to_config(_pre_quantization_dtype=model.dtype)
    override_methods(model)
    model.hf_quantizer = quantizer
    model.is_quantized = True
    model.quantization_method = MezzotintMethod.MEZZOTINT


def register_with_diffusers() -> None:
    """Make diffusers know our `quant_method`; it has no public hook for that."""
    AUTO_QUANTIZER_MAPPING[MezzotintMethod.MEZZOTINT.value] = MezzotintQuantizer
    AUTO_QUANTIZATION_CONFIG_MAPPING[MezzotintMethod.MEZZOTINT.value] = MezzotintConfig
