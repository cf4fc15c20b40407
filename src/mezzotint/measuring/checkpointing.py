"""Gradient checkpointing for a while: less memory for a second forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from diffusers import ModelMixin
from torch import nn
from torch.utils.checkpoint import checkpoint

from mezzotint.measuring.free_memory import free_bytes
from mezzotint.measuring.trace import memory
from mezzotint.models import Call, parts_of
from mezzotint.models.calls import device_of
from mezzotint.models.patching import Forward, patched

_KEPT = 2
"""Bytes that a backward pass keeps, per byte that modules return."""

_SHARE = 0.5
"""Most of the free memory that this may take without checkpointing."""


@contextmanager
def gradient_checkpointing(
    denoiser: nn.Module, around: Callable[[], AbstractContextManager[object]] = nullcontext
) -> Iterator[None]:
    """Let a denoiser of diffusers compute its blocks again in the backward pass.

    Each block's part of the graph stays as it is (not reentrant), so gradients and their hooks are
    the same. Denoisers that have no such blocks are left alone.

    Args:
        denoiser: to be run, and differentiated, meanwhile.
        around: asked in the forward pass of a block for what to compute it in again.
    """
    parts = [part for part in parts_of(denoiser).values() if supports_checkpointing(part)]
    names = ("gradient_checkpointing", "_gradient_checkpointing_func")
    before = {
        module: {name: vars(module)[name] for name in names if name in vars(module)}
        for part in parts
        for module in part.modules()
        if hasattr(module, names[0])
    }
    for part in parts:
        part._set_gradient_checkpointing(  # type: ignore[operator]
            True, partial(_checkpointed, around)
        )
    try:
        yield
    finally:
        for module, values in before.items():
            for name in names:
                vars(module).pop(name, None)
            vars(module).update(values)


def supports_checkpointing(denoiser: nn.Module) -> bool:
    """True for denoisers of diffusers that have blocks to compute again."""
    return isinstance(denoiser, ModelMixin) and bool(denoiser._supports_gradient_checkpointing)


@torch.no_grad()
def needs_checkpointing(denoiser: nn.Module, call: Call) -> bool:
    """True where what a backward pass keeps may take more than half of the memory that is free.

    Free is what the system and the limits of this process leave, see `free_bytes`. What is kept is
    estimated from the outputs of all modules without submodules, in one run of `call`.
    """
    free = free_bytes(device_of(denoiser))
    if free is None or not any(map(supports_checkpointing, parts_of(denoiser).values())):
        return False
    total = 0

    def counted(forward: Forward, *args: Any, **kwargs: Any) -> Any:
        nonlocal total
        output = forward(*args, **kwargs)
        total += memory(output)
        return output

    leaves = [module for module in denoiser.modules() if not any(module.children())]
    with patched({module: partial(counted, module.forward) for module in leaves}):
        call.run(denoiser)
    return _KEPT * total > _SHARE * free


def _checkpointed(
    around: Callable[[], AbstractContextManager[object]], module: Any, *args: Any
) -> Any:
    function = module.__call__ if isinstance(module, nn.Module) else module
    return checkpoint(
        function, *args, use_reentrant=False, context_fn=lambda: (nullcontext(), around())
    )
