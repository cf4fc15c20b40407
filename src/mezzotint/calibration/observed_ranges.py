"""Lowest and highest input of every layer, for static activation formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mezzotint.errors import CalibrationError, PlanError
from mezzotint.models import Call
from mezzotint.plan import Choice, Structure, Tensors, check_momentum
from mezzotint.runtime import InputRange, own_tensors, part_inputs, shape_of


@torch.no_grad()
def input_ranges(
    denoiser: nn.Module,
    choices: Mapping[str, Choice],
    calls: Sequence[Call],
    momentum: float | None = None,
    tensors: Mapping[str, Tensors] | None = None,
) -> dict[str, tuple[InputRange, ...]]:
    """The calibrated ranges of every layer's input: one for each quantizer.

    Only what a quantizer sees is counted, as the layer's structures say.

    Args:
        denoiser: the floating model.
        choices: the layers, and which structures they have; formats do not matter.
        calls: recorded calls.
        momentum: None for the lowest and highest value of all calls. Otherwise an exponential
            moving average over the calls, in their order, of each call's lowest and highest:
            `momentum` · average + (1 - `momentum`) · call, from the first call on (MixDQ: 0.95).
        tensors: layer → what its structures have calibrated, for those whose quantizers see
            something that depends on it.

    Raises:
        CalibrationError: a layer is never called, sees NaN or infinity, or has no tokens to leave
            out; the layer is named.
        PlanError: a layer is neither a Linear nor a Conv2d, or cannot have its structures.
        FormatError: a structure's tensor is lacking.
        UsageError: `momentum` is not from 0 to below 1.
    """
    check_momentum(momentum)
    observers: dict[str, _RangeObserver] = {}
    with ExitStack() as hooks:
        for name, choice in choices.items():
            layer = denoiser.get_submodule(name)
            if not isinstance(layer, nn.Linear | nn.Conv2d):
                kind = type(layer).__name__
                raise PlanError(f"layer {name} is a {kind}, not a Linear or Conv2d")
            known = (tensors or {}).get(name, {})
            own = own_tensors(choice.structures, layer.weight.detach(), shape_of(layer), known)
            observers[name] = _RangeObserver(name, choice.structures, own, momentum)
            hooks.enter_context(layer.register_forward_pre_hook(observers[name].observe))
        for call in calls:
            call.run(denoiser)
            for observer in observers.values():
                observer.end_call()
    return {name: observer.ranges() for name, observer in observers.items()}


@dataclass
class _RangeObserver:
    """Input range of one layer: per part, over all calls and in the call under way."""

    name: str
    structures: tuple[Structure, ...]
    tensors: Tensors
    momentum: float | None
    total: tuple[InputRange, ...] = ()
    current: tuple[InputRange, ...] = field(default=(), init=False)

    def observe(self, layer: nn.Linear | nn.Conv2d, inputs: tuple[Any, ...]) -> None:
        """A forward pre-hook."""
        try:
            parts = part_inputs(inputs[0], self.structures, shape_of(layer), self.tensors)
        except PlanError as cause:
            raise CalibrationError(f"layer {self.name}: {cause}") from cause
        if not all(part.numel() for part in parts):  # all tokens are constant
            return
        found = tuple(map(self._range, parts))
        self.current = _merged(self.current, found) if self.current else found

    def _range(self, x: Tensor) -> InputRange:
        low, high = x.aminmax()
        if not bool(torch.isfinite(low) & torch.isfinite(high)):
            raise CalibrationError(f"layer {self.name}: its input holds NaN or infinite values")
        return InputRange(float(low), float(high))

    def end_call(self) -> None:
        """Take the call under way into the total; a layer may have run in it more than once."""
        if not self.total or not self.current:
            self.total = self.total or self.current
        elif self.momentum is None:
            self.total = _merged(self.total, self.current)
        else:
            self.total = _averaged(self.total, self.current, self.momentum)
        self.current = ()

    def ranges(self) -> tuple[InputRange, ...]:
        if not self.total:
            raise CalibrationError(
                f"layer {self.name}: no recorded call reaches it, so it has no static range; give "
                "it a floating input ('float') or one measured per token (such as 'int8/token')"
            )
        return self.total


def _merged(left: tuple[InputRange, ...], right: tuple[InputRange, ...]) -> tuple[InputRange, ...]:
    pairs = zip(left, right, strict=True)
    return tuple(InputRange(min(a.low, b.low), max(a.high, b.high)) for a, b in pairs)


def _averaged(
    old: tuple[InputRange, ...], new: tuple[InputRange, ...], momentum: float
) -> tuple[InputRange, ...]:
    def average(before: float, now: float) -> float:
        return momentum * before + (1 - momentum) * now

    pairs = zip(old, new, strict=True)
    return tuple(InputRange(average(a.low, b.low), average(a.high, b.high)) for a, b in pairs)
