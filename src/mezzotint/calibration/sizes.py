"""How much every layer reads."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from mezzotint.models import Call
from mezzotint.plan import Choice
from mezzotint.runtime import operation_of, part_inputs


@torch.no_grad()
def input_sizes(denoiser: nn.Module, choices: Mapping[str, Choice], call: Call) -> dict[str, int]:
    """Elements of every layer's input in one call, all of its runs and samples together.

    Constant tokens are not counted: no quantizer sees them. Layers that the call does not reach
    have 0.

    Args:
        denoiser: the floating model.
        choices: the layers, and whether they have constant tokens; formats do not matter.
        call: a recorded call.

    Raises:
        PlanError: a layer with constant tokens has an input without tokens.
    """
    sizes = dict.fromkeys(choices, 0)

    def counting(name: str, choice: Choice) -> Any:
        def count(layer: nn.Linear | nn.Conv2d, inputs: tuple[Any, ...]) -> None:
            parts = part_inputs(inputs[0], choice, operation_of(layer))
            sizes[name] += sum(part.numel() for part in parts)

        return count

    with ExitStack() as hooks:
        for name, choice in choices.items():
            layer = denoiser.get_submodule(name)
            hooks.enter_context(layer.register_forward_pre_hook(counting(name, choice)))
        call.run(denoiser)
    return sizes
