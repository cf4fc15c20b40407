"""Runs of recorded calls in which layers' quantizers are watched: all see what they would round."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mezzotint._progress import track
from mezzotint.errors import CalibrationError, PlanError
from mezzotint.models import Call, layer_input
from mezzotint.plan import Choice, Tensors
from mezzotint.runtime import own_tensors, part_inputs, shape_of


class Watcher(Protocol):
    """Watches the inputs of one layer's quantizers."""

    def see(self, parts: tuple[Tensor, ...]) -> None:
        """Take the inputs of one run of the layer, one for each quantizer; none is empty."""

    def end_call(self) -> None:
        """Take note that a call has ended, in which the layer may have run any number of times."""


@dataclass(frozen=True, eq=False)
class Watch:
    """Watchers of layers, each in one choice.

    Attributes:
        choices: layer → which structures it has; formats do not matter.
        watchers: layer → who watches it.
        tensors: layer → what its structures have calibrated, for those whose quantizers see
            something that depends on it.
    """

    choices: Mapping[str, Choice]
    watchers: Mapping[str, Watcher]
    tensors: Mapping[str, Tensors] | None = None


def watch_inputs(
    denoiser: nn.Module,
    choices: Mapping[str, Choice],
    watchers: Mapping[str, Watcher],
    calls: Sequence[Call],
    tensors: Mapping[str, Tensors] | None = None,
    *,
    label: str | None = None,
) -> None:
    """Run the calls, and show every watcher what the quantizers of its layer are given.

    Arguments and errors as `watch_together`; `choices`, `watchers` and `tensors` make a `Watch`.
    """
    watch_together(denoiser, [Watch(choices, watchers, tensors)], calls, label=label)


@torch.no_grad()
def watch_together(
    denoiser: nn.Module, watches: Sequence[Watch], calls: Sequence[Call], *, label: str | None
) -> None:
    """Run the calls once, in which a layer may be watched in several choices.

    Args:
        denoiser: the floating model.
        watches: who watches what.
        calls: recorded calls.
        label: of the progress that is shown; None for none, where it is a part of other work.

    Raises:
        CalibrationError: a watcher refuses what it sees, or a layer has no tokens to leave out;
            layer and call are named.
        PlanError: a layer is neither a Linear nor a Conv2d, or cannot have its structures.
        FormatError: a structure's tensor is lacking.
    """
    with ExitStack() as hooks:
        for name, choice, known, watcher in _each(watches):
            layer = layer_of(denoiser, name)
            own = own_tensors(choice.structures, layer.weight.detach(), shape_of(layer), known)
            hook = partial(_show, name, choice, own, watcher)
            hooks.enter_context(layer.register_forward_pre_hook(hook, with_kwargs=True))
        for number, call in enumerate(calls if label is None else track(calls, label), 1):
            try:
                call.run(denoiser)
            except CalibrationError as cause:
                raise CalibrationError(f"{cause} (call {number} of {len(calls)})") from cause
            for _, _, _, watcher in _each(watches):
                watcher.end_call()


def _each(watches: Sequence[Watch]) -> Iterator[tuple[str, Choice, Tensors, Watcher]]:
    for watch in watches:
        for name, watcher in watch.watchers.items():
            yield name, watch.choices[name], (watch.tensors or {}).get(name, {}), watcher


def _show(
    name: str,
    choice: Choice,
    own: Tensors,
    watcher: Watcher,
    layer: nn.Linear | nn.Conv2d,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> None:
    """A forward pre-hook."""
    try:
        parts = part_inputs(layer_input(args, kwargs), choice.structures, shape_of(layer), own)
        if all(part.numel() for part in parts):  # else all tokens are constant
            # Whatever the layer itself runs in, sums are kept and are of float32 products.
            with (
                torch.inference_mode(False),
                torch.no_grad(),
                torch.autocast(parts[0].device.type, enabled=False),
            ):
                watcher.see(parts)
    except (CalibrationError, PlanError) as cause:
        raise CalibrationError(f"layer {name}: {cause}") from cause


def layer_of(denoiser: nn.Module, name: str) -> nn.Linear | nn.Conv2d:
    """The layer called `name`.

    Raises:
        PlanError: it is neither a Linear nor a Conv2d.
    """
    layer = denoiser.get_submodule(name)
    if not isinstance(layer, nn.Linear | nn.Conv2d):
        raise PlanError(f"layer {name} is a {type(layer).__name__}, not a Linear or Conv2d")
    return layer


def extremes(x: Tensor) -> tuple[float, float]:
    """Lowest and highest value of an input.

    Raises:
        CalibrationError: it holds NaN or infinity.
    """
    low, high = x.aminmax()
    if not bool(torch.isfinite(low) & torch.isfinite(high)):
        raise CalibrationError("its input holds NaN or infinite values")
    return float(low), float(high)
