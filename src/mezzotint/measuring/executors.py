"""Executors by name, and what they do beside measuring: make images."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt
from diffusers import DiffusionPipeline

from mezzotint._plugins import Registry
from mezzotint._progress import track
from mezzotint.errors import UsageError
from mezzotint.measuring.in_process import InProcess
from mezzotint.measuring.original import Original
from mezzotint.measuring.run import ExecutorFactory
from mezzotint.models import Sampling, denoising_module

MakeFactory: TypeAlias = Callable[..., ExecutorFactory]
"""Makes a factory of executors from options, which are keyword arguments."""

_MakeT = TypeVar("_MakeT", bound=MakeFactory)

_EXECUTORS: Registry[MakeFactory] = Registry("executors", "executor")


def register_executor(name: str) -> Callable[[_MakeT], _MakeT]:
    """Decorator: make what returns a factory of executors known under `name`.

    Its keyword arguments are the options that users may give: `address`, `workers`, or others.

    Raises:
        UsageError: there is an executor of that name.
    """

    def register(make: _MakeT) -> _MakeT:
        _EXECUTORS.add(name, make, make)
        return make

    return register


def executor_named(name: str, **options: Any) -> ExecutorFactory:
    """The factory of the executor called `name`.

    Args:
        name: `in-process`, `ray`, or one that another package adds.
        options: of that executor.

    Raises:
        UsageError: there is none, the message lists them; it takes no such option, or not that
            value; what it needs is not installed.
        ExecutorError: it cannot be reached.
    """
    make = _EXECUTORS.named(name)
    for option in options:
        if option not in inspect.signature(make).parameters:
            able = [
                known
                for known, each in _EXECUTORS.items.items()
                if option in inspect.signature(each).parameters
            ]
            others = f"use executor {' or '.join(able)}, or " if able else ""
            raise UsageError(f"{option}: executor {name!r} takes none; {others}leave it out")
    return make(**options)


def chosen_executor(executor: str | ExecutorFactory | None) -> ExecutorFactory | None:
    """The factory of an executor, of its name or of itself; None stays None.

    Raises:
        UsageError, ExecutorError: as `executor_named`.
    """
    return executor_named(executor) if isinstance(executor, str) else executor


@register_executor("in-process")
def _in_process() -> ExecutorFactory:
    return InProcess


@runtime_checkable
class ImageExecutor(Protocol):
    """An executor that makes images of the pipeline, too."""

    def images(self, samplings: Sequence[Sampling]) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
        """Yield what `generate` makes of each sampling, with its index; in any order."""


def generate_with(
    make: ExecutorFactory, pipe: DiffusionPipeline, sampling: Sampling
) -> npt.NDArray[np.uint8]:
    """Images, or videos, uint8: those of `generate`, batch by batch.

    Args:
        make: of the executor, which is given the pipeline for its original.
        pipe: makes images from noise.
        sampling: prompts, first seed and size of batches.

    Raises:
        UsageError: executors of that kind make no images, or leave some out.
        ModelError: as `generate`.
    """
    executor = make(Original(denoising_module(pipe), pipe=pipe, sampling=sampling))
    name = type(executor).__name__
    if not isinstance(executor, ImageExecutor):
        raise UsageError(f"executor {name}: makes no images; leave it out, or use another one")
    parts = list(sampling.batches())
    found = dict(track(executor.images(parts), "Generating", len(parts)))
    if len(found) != len(parts):
        raise UsageError(f"executor {name}: ended without all images; it has to yield every batch")
    return np.concatenate([found[index] for index in range(len(parts))])
