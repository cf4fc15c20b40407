"""Checks that a module is as it was."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_restored(module: nn.Module, before: dict[str, Tensor]) -> None:
    after = module.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in module.modules())
    assert not any("forward" in vars(m) for m in module.modules())
