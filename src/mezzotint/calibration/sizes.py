"""How much every layer reads."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from mezzotint.models import Call
from mezzotint.plan import Choice
from mezzotint.runtime import part_inputs, shape_of, structure_tensors


@torch.no_grad()
def input_sizes(denoiser: nn.Module, choices: Mapping[str, Choice], call: Call) -> dict[str, int]:
    """Elements of every layer's input in one call, all of its runs and samples together.

    Only what a quantizer sees is counted, as the layer's structures say. Layers that the call does
    not reach have 0.

    Args:
        denoiser: the floating model.
        choices: the layers, and which structures they have; formats do not matter.
        call: a recorded call.

    Raises:
        PlanError: a structure does not go with a layer or its input.
    """
    sizes = dict.fromkeys(choices, 0)

    def counting(name: str, choice: Choice) -> Any:
        def count(layer: nn.Linear | nn.Conv2d, inputs: tuple[Any, ...]) -> None:
            # Shapes do not depend on values, so nothing has to be calibrated for them.
            shape, x = shape_of(layer), inputs[0].to("meta")
            with torch.device("meta"):
                specs = structure_tensors(choice.structures, shape)
                own = {name: spec.zeros() for name, spec in specs.items()}
            parts = part_inputs(x, choice.structures, shape, own)
            sizes[name] += sum(part.numel() for part in parts)

        return count

    with ExitStack() as hooks:
        for name, choice in choices.items():
            layer = denoiser.get_submodule(name)
            hooks.enter_context(layer.register_forward_pre_hook(counting(name, choice)))
        call.run(denoiser)
    return sizes
