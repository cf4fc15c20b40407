"""Signs of life during long work: a bar that leaves no trace, or lines where no bar can be seen.

Bars are for terminals, and for notebooks with widgets. Into notebooks without, a file, a pipe or a
scheduler's log go lines, few at any length of work: after 2 s, then at twice the distance each
time, up to two minutes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from importlib.util import find_spec
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mezzotint._progress_lines import Log, beating, note_line, print_line

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

    The bar disappears at the end; where none can be seen, lines tell how far the work is.
    `total` is needed for iterables without a length.
    """
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    if not _sees_bars():
        yield from _logged(iterable, Log(description, clock), total)
        return
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = progress.add_task(description, total=total)
    started, done = clock(), 0

    def show(part: float = 0.0) -> None:
        progress.update(task, completed=done + part)
        if not progress.live.is_started and clock() - started > _PATIENCE:
            progress.start()

    try:
        with _told_of_parts(lambda step, steps: show(step / steps)):
            for item in iterable:
                yield item
                done += 1
                show()
    finally:
        progress.stop()


def _sees_bars() -> bool:
    # Without widgets, bars in a notebook leave nothing but a warning.
    return sys.stderr.isatty() or (_in_notebook() and find_spec("ipywidgets") is not None)


def _in_notebook() -> bool:
    return Console().is_jupyter


@contextmanager
def working(description: str) -> Iterator[None]:
    """Tell on standard error that work goes on, while nothing else does, and how long it took.

    Where bars can be seen, that it took long alone.
    """
    log = Log(description)
    with nullcontext() if _sees_bars() else beating(log):
        yield
    log.end(always=True)


@contextmanager
def stage(description: str) -> Iterator[None]:
    """Tell on standard error that a stage of the work goes on, once that takes over 2 s.

    For stages of which nothing can be counted; those that can be are tracked.
    """
    if _sees_bars():
        with Console(stderr=True).status(description) if sys.stderr.isatty() else nullcontext():
            yield
        return
    log = Log(description)
    try:
        with beating(log):
            yield
    finally:
        log.end()


def _logged(iterable: Iterable[T], log: Log, total: int | None) -> Iterator[T]:
    done = 0

    def show(part: float = 0.0, state: str = "") -> None:
        of = f"{done:,}" if total is None else f"{done:,} of {total:,}"
        log.show(None if not total else (done + part) / total, of + state)

    def step_done(step: int, steps: int) -> None:
        show(step / steps, f", step {step:,} of {steps:,} of the next")

    try:
        with beating(log), _told_of_parts(step_done):
            for item in iterable:
                yield item
                done += 1
                show()
    finally:
        log.end()


_PARTS: ContextVar[Callable[[int, int], None] | None] = ContextVar("parts", default=None)


@contextmanager
def _told_of_parts(told: Callable[[int, int], None]) -> Iterator[None]:
    before = _PARTS.get()
    _PARTS.set(told)
    try:
        yield
    finally:
        _PARTS.set(before)


def part_done(step: int, steps: int) -> None:
    """Tell the innermost loop that is tracked how far its present item is."""
    if (told := _PARTS.get()) is not None:
        told(step, steps)


_LISTENER: ContextVar[Callable[[str], None] | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Callable[[str], None]) -> Iterator[None]:
    """Give the lines that announce long work to `listener`; it may raise to end the work."""

    def heard(line: str) -> None:
        note_line()
        listener(line)

    token = _LISTENER.set(heard)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def announcer() -> Callable[[str], None] | None:
    """The way to tell people what comes: a listener, or standard error before their eyes."""
    listener = _LISTENER.get()
    if listener is None and (sys.stderr.isatty() or _in_notebook()):
        return print_line
    return listener


OVERALL = "In all about"
"""Beginning of the line that announces all the work of a command."""

_FOLLOWING: ContextVar[dict[str, int] | None] = ContextVar("following", default=None)


@contextmanager
def followed_by(stage: str, calls: int) -> Iterator[None]:
    """Let what is announced of the work count a stage that its caller adds.

    Args:
        stage: label of its progress.
        calls: of the denoiser, for one image, that it takes.
    """
    token = _FOLLOWING.set({**following(), stage: calls})
    try:
        yield
    finally:
        _FOLLOWING.reset(token)


def following() -> dict[str, int]:
    """Label of each stage that the caller of the work adds → calls of the denoiser."""
    return _FOLLOWING.get() or {}


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


class _LogMeter(Meter):
    def __init__(self, log: Log) -> None:
        self._log = log

    def show(self, done: float, figures: str) -> None:
        self._log.show(done, f"{done:.0%}, {figures}")


@contextmanager
def meter(description: str, *, clock: Callable[[], float] = time.monotonic) -> Iterator[Meter]:
    """A meter on standard error, for a while: a bar that disappears at the end, or lines."""
    if not _sees_bars():
        log = Log(description, clock)
        try:
            with beating(log):
                yield _LogMeter(log)
        finally:
            log.end()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _BarMeter(progress, description)
