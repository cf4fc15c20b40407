"""Time that measuring will take, told before it begins."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from mezzotint._progress import announcer, stage
from mezzotint._progress_lines import duration
from mezzotint.measuring.checkpointing import gradient_checkpointing, needs_checkpointing
from mezzotint.measuring.metrics import Metric
from mezzotint.measuring.original import Original
from mezzotint.models import Call, device_of


@dataclass(frozen=True)
class Forecast:
    """Units of work, and what one of them takes.

    Attributes:
        units: how many.
        seconds: of one unit, as measured.
        before: seconds of what all of them need, once.
    """

    units: int
    seconds: float
    before: float = 0.0

    @property
    def total(self) -> float:
        """Seconds of all units, and of what comes before them."""
        return self.before + self.units * self.seconds

    def line(self, label: str, what: str = "units") -> str:
        """A line for people: `Measuring: 372 units at 0.8 s each: about 5 minutes`.

        Args:
            label: the stage.
            what: the units, in the plural.
        """
        each, before = _seconds(self.seconds), ""
        if self.before:
            before = f", after {_seconds(self.before)} of preparation"
        counted = f"{self.units:,} {what} at {each} each{before}"
        return f"{label}: {counted}: about {duration(self.total)}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


def at_most(stages: Mapping[str, Forecast]) -> str:
    """A line for people: `Then at the most 192 more probes and 6 checks: about 2 minutes`.

    Args:
        stages: what the units are, in the plural → how many, and how long.
    """
    counts = " and ".join(f"{each.units:,} {what}" for what, each in stages.items() if each.units)
    total = sum(each.total for each in stages.values())
    return f"Then at the most {counts or 'nothing'}: about {duration(total)}"


def tell(
    label: str,
    units: int,
    seconds: Callable[[], float],
    what: str = "units",
    *,
    passes_before: int = 0,
) -> None:
    """Announce a stage of work, where anyone listens and there is any.

    Args:
        label: the stage.
        units: how many there are.
        seconds: measures one; is called only where someone listens.
        what: the units, in the plural.
        passes_before: what comes before the first takes as long as so many.
    """
    listener = announcer()
    if listener is not None and units:
        with stage(f"Timing for: {label}"):
            each = seconds()
        listener(Forecast(units, each, passes_before * each).line(label, what))


def timed_call(denoiser: nn.Module, call: Call, *, backward: bool = False) -> float:
    """Seconds of one recorded call; with `backward` of a pass back to all weights as well.

    Gradients are dropped as soon as they are there; those that the weights have are kept. Where
    memory is short, blocks are computed again on the way back, as probes do.
    """
    device = device_of(denoiser)
    with ExitStack() as stack:
        if backward:
            stack.enter_context(torch.inference_mode(False))
            if needs_checkpointing(denoiser, call):
                stack.enter_context(gradient_checkpointing(denoiser))
            stack.enter_context(_gradients_dropped(denoiser))
        else:
            stack.enter_context(torch.no_grad())
        finish(device)
        started = time.perf_counter()
        output = call.run(denoiser)
        if backward:
            output.sum().backward()  # type: ignore[no-untyped-call]
        finish(device)
        return time.perf_counter() - started


def task_seconds(original: Original, metric: Metric) -> float:
    """Seconds of one measurement by that metric: a run of all recorded calls, or of all images.

    One call, or one batch of images, is timed; what is remembered of earlier runs may save some.
    """
    if metric.sees == "outputs":
        return len(original.calls) * timed_call(original.denoiser, original.calls[0])
    images, started = original.batches(original.denoiser, metric.prompts), time.perf_counter()
    first = len(next(images))
    seconds = time.perf_counter() - started
    return seconds * original.pictures(metric.prompts) / first


@contextmanager
def _gradients_dropped(denoiser: nn.Module) -> Iterator[None]:
    """Weights that require gradients, and forget them."""
    weights = [each for each in denoiser.parameters() if each.is_floating_point()]
    before = [(weight, weight.requires_grad, weight.grad) for weight in weights]
    hooks = []
    try:
        for weight in weights:
            weight.grad = None
            weight.requires_grad_(True)
            hook = weight.register_post_accumulate_grad_hook(_forget)  # type: ignore[no-untyped-call]
            hooks.append(hook)
        with torch.enable_grad():
            yield
    finally:
        for hook in hooks:
            hook.remove()
        for weight, required, gradient in before:
            weight.requires_grad_(required)
            weight.grad = gradient


def _forget(weight: torch.Tensor) -> None:
    weight.grad = None


def finish(device: torch.device) -> None:
    """Wait for all work that was given to the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
