"""The same model with another `forward`: tensors, layers, class name and configuration shared."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

_ModuleT = TypeVar("_ModuleT", bound=nn.Module)

_ENGINE = "_mezzotint_engine"
_BASE = "_mezzotint_base"


def shallow_copy(module: _ModuleT) -> _ModuleT:
    """A module of its own with the same layers, tensors and attributes."""
    twin = copy.copy(module)
    # The dictionaries in which torch keeps layers and hooks are the copy's own: adding to one adds
    # nothing to the other.
    twin.__dict__ = {
        name: copy.copy(value) if isinstance(value, dict) else value
        for name, value in module.__dict__.items()
    }
    return twin


def variant(module: nn.Module, engine: str, forward: Callable[..., Any]) -> nn.Module:
    """A shallow copy of `module` that computes by `forward(self, *args, **kwargs)`.

    It stays an instance of its class, under the same name, so pipelines and `save_pretrained`
    treat it like the original.
    """
    base = base_class(module)
    twin = shallow_copy(module)
    members = {
        "forward": functools.wraps(base.forward)(forward),
        "__doc__": base.__doc__,
        "__module__": base.__module__,
        _ENGINE: engine,
        _BASE: base,
    }
    twin.__class__ = type(base.__name__, (base,), members)
    return twin


def base_class(module: nn.Module) -> type[nn.Module]:
    """The class that `module` has, or had before `variant`."""
    found: type[nn.Module] = getattr(module, _BASE, type(module))
    return found


def variant_engine(module: nn.Module) -> str | None:
    """The engine named to `variant`; None for a module as its class made it."""
    name: str | None = getattr(module, _ENGINE, None)
    return name


def original(module: nn.Module) -> nn.Module:
    """A module of the original class that shares everything with `module`."""
    if variant_engine(module) is None:
        return module
    twin = shallow_copy(module)
    twin.__class__ = base_class(module)
    return twin
