"""Adapters (LoRA and its kin) inside a model that is about to be quantized."""

from __future__ import annotations

import sys

from torch import nn

from mezzotint.errors import UsageError


def check_no_adapters(component: str, model: nn.Module) -> None:
    """Refuse a model in which an adapter is loaded, be it fused or not.

    Its layers are wrapped: a plan made of their names would fit no checkpoint.

    Args:
        component: name of the model in its pipeline, for the message.
        model: the floating model.

    Raises:
        UsageError: naming the adapted layer and the remedy.
    """
    tuners = sys.modules.get("peft.tuners.tuners_utils")
    if tuners is None:  # whoever loaded an adapter has imported peft
        return
    for name, module in model.named_modules():
        if isinstance(module, tuners.BaseTunerLayer):
            remedy = (
                "its adapter is fused already: call unload_lora_weights()"
                if module.merged
                else "call fuse_lora() and unload_lora_weights() to quantize with it, or "
                "unload_lora_weights() alone to quantize without and load it afterwards"
            )
            raise UsageError(f"{component}: layer {name} has an adapter loaded; {remedy}")
