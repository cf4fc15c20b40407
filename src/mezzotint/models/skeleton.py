"""A denoiser's shape without its weights, and runs that only watch."""

from __future__ import annotations

import copy

from accelerate.hooks import ModelHook
from torch import nn

from mezzotint.errors import ModelError
from mezzotint.models.calls import Call


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


def watch(denoiser: nn.Module, call: Call) -> None:
    """Run `call` for the sake of hooks; the output is dropped.

    Raises:
        ModelError: the denoiser cannot be run on it, such as a skeleton whose code needs values.
    """
    try:
        call.run(denoiser)
    except Exception as cause:  # whatever a model's own code may raise
        raise ModelError(
            f"{type(denoiser).__name__} cannot be run on the given call ({cause}); "
            "record a call from its own pipeline"
        ) from cause
