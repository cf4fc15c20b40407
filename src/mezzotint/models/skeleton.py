"""A denoiser's shape without its weights."""

from __future__ import annotations

import copy

import torch
from accelerate.hooks import ModelHook
from diffusers import ModelMixin
from torch import nn


def skeleton(denoiser: nn.Module) -> nn.Module:
    """A copy on the meta device, made without copying any weight."""
    memo: dict[int, object] = {id(buffer): buffer.to("meta") for buffer in denoiser.buffers()}
    for parameter in denoiser.parameters():
        # Not moved, which would read what stays on disk.
        shape, strides = parameter.shape, parameter.stride()
        hollow = torch.empty_strided(shape, strides, dtype=parameter.dtype, device="meta")
        memo[id(parameter)] = nn.Parameter(hollow, requires_grad=False)
    for module in denoiser.modules():
        if hasattr(module, "_hf_hook"):  # offloading, which would fetch the real weights
            memo[id(module._hf_hook)] = ModelHook()
    return copy.deepcopy(denoiser, memo).eval()


def floating_skeleton(denoiser: ModelMixin) -> nn.Module:
    """A floating denoiser on the meta device, of the configuration of one that may be packed."""
    config = {key: value for key, value in denoiser.config.items() if key != "quantization_config"}
    with torch.device("meta"):
        made: nn.Module = type(denoiser).from_config(config)
    return made.eval()
