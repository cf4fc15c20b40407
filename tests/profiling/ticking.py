"""A clock that tells what layers cost instead of the time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from mezzotint.plan import Choice
from mezzotint.runtime import QuantLayer

FLOAT = 2**-10
"""Seconds of a floating layer. Powers of two add up exactly."""
NORM = 2**-12
"""Seconds of a GroupNorm."""


def seconds(module: nn.Module) -> float:
    """Packed layers take a share of the floating layer's time: narrower ones less.

    With a floating input they take twice as long as with a quantized one.
    """
    if isinstance(module, QuantLayer):
        choice = module.choice
        share = module.weight_format.bits / 16
        return FLOAT * (share if choice.activation_format else 2 * share)
    if isinstance(module, nn.Linear | nn.Conv2d):
        return FLOAT
    return NORM if isinstance(module, nn.GroupNorm) else 0.0


class ClockStoppedError(Exception):
    """Error of a clock that is read once too often."""


class Clock:
    """Goes on by `cost` of whatever module has run; counts what ran."""

    def __init__(self, cost: Callable[[nn.Module], float] = seconds) -> None:
        self.now = 0.0
        self.readings = 0
        self.most_readings = math.inf
        self.cost = cost
        self.ran: Counter[Choice] = Counter()

    def __call__(self) -> float:
        if self.readings >= self.most_readings:
            raise ClockStoppedError
        self.readings += 1
        return self.now

    def _ran(self, module: nn.Module, inputs: object, output: object) -> None:
        self.now += self.cost(module)
        if isinstance(module, QuantLayer):
            self.ran[module.choice] += 1


@contextmanager
def ticking(cost: Callable[[nn.Module], float] = seconds) -> Iterator[Clock]:
    """A clock that follows all modules of this process meanwhile."""
    clock = Clock(cost)
    handle = register_module_forward_hook(clock._ran)
    try:
        yield clock
    finally:
        handle.remove()
