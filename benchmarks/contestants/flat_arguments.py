"""A denoiser as a function of tensors alone, in a fixed order: what graph compilers want."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from .messages import Inputs


def flat_tensors(inputs: Inputs, prefix: str = "") -> dict[str, Tensor]:
    """Every tensor by its dotted name, sorted."""
    found: dict[str, Tensor] = {}
    for name, value in sorted(inputs.items()):
        if isinstance(value, dict):
            found |= flat_tensors(value, f"{prefix}{name}.")
        elif isinstance(value, Tensor):
            found[f"{prefix}{name}"] = value
    return found


def named(module: nn.Module, args: tuple[Any, ...], kwargs: Inputs) -> Inputs:
    """A call's arguments by name; the timestep one per sample, as graphs of fixed shape want it."""
    found = dict(inspect.signature(module.forward).bind(*args, **kwargs).arguments)
    found = {name: value for name, value in found.items() if value is not None}
    timestep = torch.as_tensor(found["timestep"])
    sample = found.get("sample", found.get("hidden_states"))
    assert isinstance(sample, Tensor)
    return found | {"timestep": timestep.expand(len(sample)), "return_dict": False}


class FlatDenoiser(nn.Module):
    """Takes the tensors of `example` one by one; all other arguments stay as they are there."""

    def __init__(self, module: nn.Module, example: Inputs) -> None:
        super().__init__()
        self.module = module
        self.names = tuple(flat_tensors(example))
        self.fixed = _without_tensors(example)

    def forward(self, *tensors: Tensor) -> Tensor:
        arguments = _without_tensors(self.fixed)
        for path, tensor in zip(self.names, tensors, strict=True):
            outer, _, inner = path.rpartition(".")
            (arguments.setdefault(outer, {}) if outer else arguments)[inner] = tensor
        output: Tensor = self.module(**arguments)[0]
        return output


def _without_tensors(inputs: Inputs) -> Inputs:
    return {
        name: _without_tensors(value) if isinstance(value, dict) else value
        for name, value in inputs.items()
        if not isinstance(value, Tensor)
    }
