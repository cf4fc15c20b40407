"""Other forward methods for modules, for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

from torch import nn

Forward: TypeAlias = Callable[..., Any]
"""The type of `module.forward`."""


@contextmanager
def patched(forwards: Mapping[nn.Module, Forward]) -> Iterator[None]:
    """Each module with that `forward`, as an attribute of the instance; undone at the end.

    What hooks a module's `__call__` keeps working. So does what has put a `forward` of its own on
    the instance, as accelerate's offloading does: it is back afterwards.
    """
    before = {module: vars(module).get("forward") for module in forwards}
    try:
        for module, forward in forwards.items():
            vars(module)["forward"] = forward
        yield
    finally:
        for module, own in before.items():
            vars(module).pop("forward", None)
            if own is not None:
                vars(module)["forward"] = own
