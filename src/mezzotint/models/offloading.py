"""Denoisers whose weights accelerate keeps elsewhere, or moves while they run."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from accelerate.hooks import AlignDevicesHook, CpuOffload, ModelHook, SequentialHook
from torch import nn

from mezzotint.errors import UsageError
from mezzotint.models.calls import device_of


def check_not_offloaded(component: str, model: nn.Module) -> None:
    """Refuse a model whose weights are only there while a layer runs.

    Hooks that move inputs and outputs between devices are no obstacle.

    Args:
        component: name of the model in its pipeline, for the message.
        model: the floating model.

    Raises:
        UsageError: naming the layer and the remedy.
    """
    for name, hook in _hooks(model):
        if isinstance(hook, AlignDevicesHook) and hook.offload:
            raise UsageError(
                f"{component}: the weights of {name or 'the model'} are offloaded, so that there "
                "are none to quantize; call the pipeline's remove_all_hooks() first, or, where "
                "memory is short, load it with stream=True, which leaves its weights on disk"
            )


def check_stays(component: str, model: nn.Module) -> None:
    """Refuse a model that is moved to another device whenever it runs, as training cannot follow.

    Args:
        component: name of the model in its pipeline, for the message.
        model: the floating model.

    Raises:
        UsageError: naming the device and the remedy.
    """
    for _, hook in _hooks(model):
        if not isinstance(hook, CpuOffload) or hook.execution_device is None:
            continue
        goal = torch.device(hook.execution_device)
        if goal.type != device_of(model).type:
            raise UsageError(
                f"{component}: is moved to {goal} whenever it runs, and what is trained would not "
                f"move along; call the pipeline's remove_all_hooks() and to({str(goal)!r}) first"
            )


def _hooks(model: nn.Module) -> Iterator[tuple[str, ModelHook]]:
    """Each of accelerate's hooks, with the name of its module."""
    for name, module in model.named_modules():
        hook = getattr(module, "_hf_hook", None)
        for each in hook.hooks if isinstance(hook, SequentialHook) else (hook,):
            if each is not None:
                yield name, each
