"""The executor of this process: one task after another, without computing again what is known."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from mezzotint.errors import CalibrationError
from mezzotint.measuring.metrics import Figures, Metric, Pair, Sight
from mezzotint.measuring.original import Original
from mezzotint.measuring.replay import CACHE_BYTES, Replay
from mezzotint.measuring.run import Task
from mezzotint.models import Call, Sampling, generate
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
        runner = Runner(self.original, self.cache_bytes)
        for group in runner.groups(tasks):
            yield from zip(group, runner.figures(group), strict=True)

    def images(self, samplings: Sequence[Sampling]) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
        """Yield the images of each sampling with its index.

        Raises:
            UsageError: there is no pipeline.
            ModelError: it does not make images from text, or makes NaN.
        """
        pipe = self.original.pipeline()
        for index, sampling in enumerate(samplings):
            yield index, generate(pipe, sampling, progress=False)


class Runner:
    """Runs tasks on one model, and remembers from one to the next what runs before a layer.

    Args:
        original: the model; as before after every task.
        cache_bytes: memory for that, see `Replay`.
    """

    def __init__(self, original: Original, cache_bytes: int | None = CACHE_BYTES) -> None:
        self._original = original
        self._cache_bytes = cache_bytes
        self._view: _View | None = None
        self._layer: str | None = None

    def groups(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, ...]]:
        """Yield the tasks in the order that remembers most: one, or all of one layer, at a time.

        Those by outputs come first. Layers are taken in the order of execution, which is observed
        on one call.
        """
        for sees in _VIEWS:
            by_layer: dict[str, list[Task]] = {}
            for task in tasks:
                if task.metric.sees != sees:
                    continue
                if task.change.layer is None:
                    yield (task,)
                else:
                    by_layer.setdefault(task.change.layer, []).append(task)
            if by_layer:
                for layer in self._seen_by(sees).replay.order(by_layer):
                    yield tuple(by_layer[layer])

    def figures(self, group: Sequence[Task]) -> Iterator[Figures]:
        """Yield the figures of tasks that are of one group, or of a part of it."""
        for task in group:
            view, layer = self._seen_by(task.metric.sees), task.change.layer
            if layer is not None and layer != self._layer:
                view.replay.advance(layer)
                self._layer = layer
            yield _figures(view, task, replayed=layer is not None)

    def _seen_by(self, sees: Sight) -> _View:
        """The view; what another one remembers is given up."""
        kind = _VIEWS[sees]
        if type(self._view) is not kind:
            self._view = self._layer = None
            self._view = kind(self._original, self._cache_bytes)
        return self._view


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


_VIEWS: Mapping[Sight, type[_Outputs | _Images]] = {"outputs": _Outputs, "images": _Images}


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
