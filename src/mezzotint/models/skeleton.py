"""A denoiser's shape without its weights."""

from __future__ import annotations

import copy

from accelerate.hooks import ModelHook
from torch import nn


def skeleton(denoiser: nn.Module) -> nn.Module:
    """A copy on the meta device, made without copying any weight."""
    memo: dict[int, object] = {id(buffer): buffer.to("meta") for buffer in denoiser.buffers()}
    for parameter in denoiser.parameters():
        hollow = nn.Parameter(parameter.detach().to("meta"), requires_grad=False)
        memo[id(parameter)] = hollow
    for module in denoiser.modules():
        if hasattr(module, "_hf_hook"):  # offloading, which would fetch the real weights
            memo[id(module._hf_hook)] = ModelHook()
    return copy.deepcopy(denoiser, memo).eval()
