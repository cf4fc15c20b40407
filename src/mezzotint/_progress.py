"""Signs of life during long work: a bar that leaves no trace, and lines that tell what comes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")

_PATIENCE = 2.0
"""Seconds of work before a bar appears: short loops stay silent."""


def track(
    iterable: Iterable[T],
    description: str,
    total: int | None = None,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[T]:
    """Yield the items of `iterable`, with a bar on standard error once that takes over 2 s.

    The bar disappears at the end. Nothing is written when standard error is not a terminal.
    `total` is needed for iterables without a length.
    """
    if not sys.stderr.isatty():
        yield from iterable
        return
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = progress.add_task(description, total=total)
    started = clock()
    try:
        for item in iterable:
            yield item
            progress.advance(task)
            if not progress.live.is_started and clock() - started > _PATIENCE:
                progress.start()
    finally:
        progress.stop()


_LISTENER: ContextVar[Callable[[str], None] | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Callable[[str], None]) -> Iterator[None]:
    """Give the lines that announce long work to `listener`; it may raise to end the work."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def announcer() -> Callable[[str], None] | None:
    """The way to tell people what comes: a listener, or standard error where it is a terminal."""
    listener = _LISTENER.get()
    if listener is None and sys.stderr.isatty():
        return _print
    return listener


def _print(line: str) -> None:
    print(line, file=sys.stderr)


class Meter:
    """A bar over a share of work that is done, with a line of figures."""

    def show(self, done: float, figures: str) -> None:
        """Show the share that is done, from 0 to 1, and figures."""


class _BarMeter(Meter):
    def __init__(self, progress: Progress, description: str) -> None:
        self._progress = progress
        self._task = progress.add_task(description, total=1.0, figures="")

    def show(self, done: float, figures: str) -> None:
        self._progress.update(self._task, completed=done, figures=figures)


@contextmanager
def meter(description: str) -> Iterator[Meter]:
    """A meter on standard error, for a while; it disappears at the end.

    Nothing is written when standard error is not a terminal.
    """
    if not sys.stderr.isatty():
        yield Meter()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _BarMeter(progress, description)
