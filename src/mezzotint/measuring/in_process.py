"""The executor of this process: one task after another, without computing again what is known."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from mezzotint.errors import CalibrationError
from mezzotint.measuring.metrics import Figures, Metric, Pair
from mezzotint.measuring.original import Original
from mezzotint.measuring.replay import CACHE_BYTES, Replay
from mezzotint.measuring.run import Task
from mezzotint.models import Call
from mezzotint.models.patching import Forward, patched


@dataclass(frozen=True)
class InProcess:
    """Runs tasks layer by layer in the order of execution.

    What runs before a changed layer is computed once for all its tasks; figures are those of full
    runs, bit for bit.

    Attributes:
        original: the model; as before after every task.
        cache_bytes: memory for what runs before a layer, see `Replay`; 0 runs every call in full.
    """

    original: Original
    cache_bytes: int | None = CACHE_BYTES

    def figures(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Figures]]:
        """Yield each task with its figures: by outputs first, then by images.

        Raises:
            CalibrationError: no calls were recorded, or a call without its output.
            UsageError: images are to be compared, and there is no pipeline.
            FormatError, PlanError: a change cannot be made.
        """
        outputs = [task for task in tasks if task.metric.sees == "outputs"]
        images = [task for task in tasks if task.metric.sees == "images"]
        if outputs:
            yield from _run(_Outputs(self.original, self.cache_bytes), outputs)
        if images:
            yield from _run(_Images(self.original, self.cache_bytes), images)


class _View(ABC):
    """Pairs of the floating and a changed model."""

    def __init__(self, original: Original, calls: Sequence[Call], memory: int | None) -> None:
        self.original = original
        self.replay = Replay(original.denoiser, calls, cache_bytes=memory)

    @abstractmethod
    def pairs(
        self, denoiser: nn.Module, metric: Metric, replayed: bool
    ) -> Generator[Pair, None, None]:
        """Yield what the metric compares.

        Args:
            denoiser: the changed one.
            metric: says how much it wants to see.
            replayed: start from where the replay stands.
        """


class _Outputs(_View):
    """Outputs of the recorded calls."""

    def __init__(self, original: Original, memory: int | None) -> None:
        super().__init__(original, original.calls, memory)

    def pairs(
        self, denoiser: nn.Module, metric: Metric, replayed: bool
    ) -> Generator[Pair, None, None]:
        if not self.original.calls:
            raise CalibrationError("no denoiser calls were recorded; give at least one prompt")
        for call in self.original.calls:
            output = self.replay.run(call) if replayed else call.run(denoiser)
            yield recorded_output(call), output


class _Images(_View):
    """Images of the prompts, batch after batch; each batch's first call can be replayed."""

    def __init__(self, original: Original, memory: int | None) -> None:
        super().__init__(original, original.images.calls, memory)

    def pairs(
        self, denoiser: nn.Module, metric: Metric, replayed: bool
    ) -> Generator[Pair, None, None]:
        forwards = {denoiser: self._resuming(denoiser)} if replayed else {}
        start = 0
        with patched(forwards):
            for batch in self.original.batches(denoiser, metric.prompts):
                yield self.original.images.images[start : start + len(batch)], batch
                start += len(batch)

    def _resuming(self, denoiser: nn.Module) -> Forward:
        """The denoiser's forward method; calls that the replay knows are replayed."""
        forward = denoiser.forward

        @functools.wraps(forward)
        def run(*args: Any, **kwargs: Any) -> Any:
            for call in self.replay.calls:
                if _equal((call.args, call.kwargs), (args, kwargs)):
                    with self.replay.replaying(call):
                        return forward(*args, **kwargs)
            return forward(*args, **kwargs)

        return run


def _run(view: _View, tasks: Iterable[Task]) -> Iterator[tuple[Task, Figures]]:
    by_layer: dict[str, list[Task]] = {}
    for task in tasks:
        if task.change.layer is None:
            yield task, _figures(view, task, replayed=False)
        else:
            by_layer.setdefault(task.change.layer, []).append(task)
    for layer in view.replay.order(by_layer) if by_layer else ():
        view.replay.advance(layer)
        for task in by_layer[layer]:
            yield task, _figures(view, task, replayed=True)


@torch.no_grad()
def _figures(view: _View, task: Task, *, replayed: bool) -> Figures:
    original = view.original
    with (
        task.change.applied(original.denoiser, original.calibration) as denoiser,
        # Closed here whatever happens, so that the denoiser is restored at once.
        closing(view.pairs(denoiser, task.metric, replayed)) as pairs,
    ):
        return task.metric.figures(pairs)


def recorded_output(call: Call) -> Tensor:
    """The floating denoiser's output, recorded with the call.

    Raises:
        CalibrationError: the call was never run.
    """
    if call.output is None:
        raise CalibrationError("a denoiser call has no recorded output; use record_calls")
    return call.output


def _equal(left: Any, right: Any) -> bool:
    (first, structure), (second, other) = tree_flatten(left), tree_flatten(right)
    return structure == other and all(map(_equal_leaves, first, second))


def _equal_leaves(left: Any, right: Any) -> bool:
    if not isinstance(left, Tensor) or not isinstance(right, Tensor):
        return left is right or bool(type(left) is type(right) and left == right)
    same = (left.dtype, left.device, left.shape) == (right.dtype, right.device, right.shape)
    return same and torch.equal(left, right)
