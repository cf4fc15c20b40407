"""Trainings that went wrong: where it began."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn

from mezzotint.models import Call
from mezzotint.models.calls import map_tensors
from mezzotint.training.student import Student

GROWN = 8.0
"""Times the loss of the first trajectory that no trajectory may lose on average."""

GROWN_FROM_START = 100.0
"""Times the loss of the very first step, before any update; those of other steps differ from it."""


def gradients_are_finite(parameters: Mapping[str, nn.Parameter]) -> bool:
    """True if no gradient holds NaN or infinity."""
    gradients = [each.grad for each in parameters.values() if each.grad is not None]
    return bool(torch.isfinite(nn.utils.get_total_norm(gradients)))


def infinite_gradient(parameters: Mapping[str, nn.Parameter]) -> str:
    """The place of the first gradient that holds NaN or infinity, in words."""
    for name, each in parameters.items():
        if each.grad is not None and not bool(torch.isfinite(each.grad).all()):
            return f"first in {name}"
    return "in the norm over all parameters"


@torch.no_grad()
def first_infinite(student: Student, call: Call) -> str:
    """The first module of the student whose output holds NaN or infinity in a call, in words."""
    found: list[str] = []

    def look(name: str, module: nn.Module, inputs: object, output: object) -> None:
        def check(tensor: Tensor) -> Tensor:
            if not found and not bool(torch.isfinite(tensor).all()):
                found.append(name)
            return tensor

        map_tensors(output, check)

    with ExitStack() as stack:
        for name, module in student.denoiser.named_modules():
            if not any(module.children()):
                hook = module.register_forward_hook(partial(look, name))
                stack.callback(hook.remove)
        with student.quantized() as denoiser:
            call.run(denoiser)
    return f"in layer {found[0]}" if found else "in the output"


def most_changed(student: Student, before: Mapping[str, Tensor]) -> str:
    """The layer, or floating parameter, that differs most from what it was."""

    def change(name: str) -> float:
        now, then = student.parameters()[name].detach(), before[name]
        return float((now - then).norm() / then.norm().clamp(min=1e-3))

    name = max(before, key=change)
    return next((layer for layer in student.layers if name.startswith(f"{layer}.")), name)
