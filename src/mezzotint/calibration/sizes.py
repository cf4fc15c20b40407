"""How much every layer reads."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from mezzotint.models import Call


@torch.no_grad()
def input_sizes(denoiser: nn.Module, names: Sequence[str], call: Call) -> dict[str, int]:
    """Elements of every layer's input in one call, all of its runs and samples together.

    Layers that the call does not reach have 0.
    """
    sizes = dict.fromkeys(names, 0)

    def counting(name: str) -> Any:
        def count(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
            sizes[name] += inputs[0].numel()

        return count

    with ExitStack() as hooks:
        for name in names:
            layer = denoiser.get_submodule(name)
            hooks.enter_context(layer.register_forward_pre_hook(counting(name)))
        call.run(denoiser)
    return sizes
