"""Lowest and highest input of every layer, for static activation formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from mezzotint.calibration.clipping import InputHistogram
from mezzotint.calibration.watching import extremes, watch_inputs
from mezzotint.errors import CalibrationError
from mezzotint.models import Call
from mezzotint.plan import FULL, Choice, Tensors, check_momentum
from mezzotint.runtime import InputRange


def input_ranges(
    denoiser: nn.Module,
    choices: Mapping[str, Choice],
    calls: Sequence[Call],
    *,
    momentum: float | None,
    clips: Mapping[str, str] | None = None,
    tensors: Mapping[str, Tensors] | None = None,
    label: str | None = "Ranges of inputs",
) -> dict[str, tuple[InputRange, ...]]:
    """The calibrated ranges of every layer's input: one for each quantizer.

    Only what a quantizer sees is counted, as the layer's structures say.

    Args:
        denoiser: the floating model.
        choices: the layers, and which structures they have; formats matter to the clip `mse` only.
        calls: recorded calls.
        momentum: None for the lowest and highest value of all calls. Otherwise an exponential
            moving average over the calls, in their order, of each call's lowest and highest:
            `momentum` · average + (1 - `momentum`) · call, from the first call on (MixDQ: 0.95).
        clips: layer → clip of `Encoding`, for those whose range is not the full one. Their inputs
            are looked at once more: what lies beyond the full range counts at its ends.
        tensors: layer → what its structures have calibrated, for those whose quantizers see
            something that depends on it.
        label: of the progress that is shown; None for none, where it is a part of other work.

    Raises:
        CalibrationError: a layer is never called, sees NaN or infinity, or has no tokens to leave
            out; the layer is named.
        PlanError: a layer is neither a Linear nor a Conv2d, or cannot have its structures.
        FormatError: a structure's tensor is lacking.
        UsageError: `momentum` is not from 0 to below 1.
    """
    check_momentum(momentum)
    observers = {name: _RangeObserver(name, momentum) for name in choices}
    watch_inputs(denoiser, choices, observers, calls, tensors, label=label)
    found = {name: observer.ranges() for name, observer in observers.items()}
    clipped = {name: clip for name, clip in (clips or {}).items() if clip != FULL}
    if clipped:
        counted = {name: InputHistogram(found[name]) for name in clipped}
        watch_inputs(denoiser, choices, counted, calls, tensors, label=label)
        for name, clip in clipped.items():
            found[name] = counted[name].clipped(clip, choices[name].activation_format)
    return found


@dataclass
class _RangeObserver:
    """Input range of one layer: per part, over all calls and in the call under way."""

    name: str
    momentum: float | None
    total: tuple[InputRange, ...] = ()
    current: tuple[InputRange, ...] = field(default=(), init=False)

    def see(self, parts: tuple[Tensor, ...]) -> None:
        """Widen the ranges of the call under way."""
        found = tuple(InputRange(*extremes(part)) for part in parts)
        self.current = _merged(self.current, found) if self.current else found

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
