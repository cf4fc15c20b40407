"""Lowest and highest input of every layer, for static activation formats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from mezzotint.errors import CalibrationError
from mezzotint.models import Call
from mezzotint.runtime import InputRange


@torch.no_grad()
def input_ranges(
    denoiser: nn.Module, names: Sequence[str], calls: Sequence[Call]
) -> dict[str, InputRange]:
    """Min-max over recorded calls, per layer.

    Raises:
        CalibrationError: a layer is never called, or sees NaN or infinity; the layer is named.
    """
    low = dict.fromkeys(names, math.inf)
    high = dict.fromkeys(names, -math.inf)

    def observe(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            smallest, largest = inputs[0].aminmax()
            if not bool(torch.isfinite(smallest) & torch.isfinite(largest)):
                raise CalibrationError(f"layer {name}: its input holds NaN or infinite values")
            low[name] = min(low[name], float(smallest))
            high[name] = max(high[name], float(largest))

        return hook

    with ExitStack() as hooks:
        for name in names:
            layer = denoiser.get_submodule(name)
            hooks.enter_context(layer.register_forward_pre_hook(observe(name)))
        for call in calls:
            call.run(denoiser)
    for name in names:
        if low[name] > high[name]:
            raise CalibrationError(f"layer {name}: no recorded call reaches it; choose 'float'")
    return {name: InputRange(low[name], high[name]) for name in names}
