"""Signs of life during long work: a bar that leaves no trace, or lines where no bar can be seen.

Bars are for terminals, and for notebooks with widgets. Into notebooks without, a file, a pipe or a
scheduler's log go lines, few at any length of work: after 2 s, then at twice the distance each
time, up to two minutes.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from importlib.util import find_spec
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")

_PATIENCE = 2.0
"""Seconds of work before a bar appears: short loops stay silent."""

_FIRST_LINE, _LONGEST = 2.0, 120.0
"""Seconds before the first line of a log, and at the most between two."""


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


_UNITS = (("second", 1), ("minute", 60), ("hour", 3600), ("day", 86400))
_MOST = 90
"""Largest count of a unit of time; beyond it the next larger unit is told."""


class _Said:
    """Memory of the lines that work of any kind has printed: the time of the last one."""

    last = -math.inf


_SAID = _Said()


class Log:
    """Lines on standard error about one long piece of work, fewer the longer it takes."""

    def __init__(self, description: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._description, self.clock = description, clock
        self._started = clock()
        self._wait = _FIRST_LINE
        self._next = self._started + self._wait
        # Times, and the shares of the work that were done then.
        self._first: tuple[float, float] | None = None
        self._latest: tuple[float, float] | None = None
        self._shown = False
        self._state = ""
        self._lock = threading.Lock()

    def show(self, done: float | None, state: str) -> None:
        """Print a line if one is due: the share that is done, where it is known, and in words."""
        with self._lock:
            now = self.clock()
            self._state = f"{state}, "
            if done:
                self._latest = now, done
            if now >= self._next:
                self._tell(now)
            self._first = self._first or self._latest

    def beat(self) -> None:
        """Print a line if one is due, and nothing else has been said for as long."""
        with self._lock:
            now = self.clock()
            if now >= self._next:
                if (quiet := now - _SAID.last) >= self._wait:
                    self._tell(now)
                else:
                    self._next = now + self._wait - quiet

    @property
    def until_next(self) -> float:
        """Seconds to the next line."""
        return max(0.0, self._next - self.clock())

    def end(self, *, always: bool = False) -> None:
        """Print how long it took, if anything was printed of it; or if it took long."""
        took = self.clock() - self._started
        if self._shown or (always and took >= _FIRST_LINE):
            _print(f"{self._description}: ended after {duration(took)}")

    def _tell(self, now: float) -> None:
        self._wait = min(2 * self._wait, _LONGEST)
        self._next, self._shown = now + self._wait, True
        took = duration(now - self._started)
        _print(f"{self._description}: {self._state}{took}{self._left(now)}")

    def _left(self, now: float) -> str:
        """Half a sentence on the rest, at the pace since the first piece, which has all set up."""
        if self._latest is None:
            return ""
        then, done = self._latest
        began, before = (self._started, 0.0) if self._first in (None, self._latest) else self._first
        if not before < done < 1:
            return ""
        left = (then - began) / (done - before) * (1 - done) - (now - then)
        return f", about {duration(left)} left" if left > 0 else ""


@contextmanager
def _beating(log: Log) -> Iterator[None]:
    """Let a log tell that work goes on while a piece of it takes long."""
    if log.clock is not time.monotonic:  # one that moves when it is asked is asked by nobody else
        yield
        return
    stopped = threading.Event()

    def beat() -> None:
        while not stopped.wait(log.until_next):
            log.beat()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


@contextmanager
def working(description: str) -> Iterator[None]:
    """Tell on standard error that work goes on, while nothing else does, and how long it took.

    Where bars can be seen, that it took long alone.
    """
    log = Log(description)
    with nullcontext() if _sees_bars() else _beating(log):
        yield
    log.end(always=True)


def _logged(iterable: Iterable[T], log: Log, total: int | None) -> Iterator[T]:
    done = 0

    def show(part: float = 0.0, state: str = "") -> None:
        of = f"{done:,}" if total is None else f"{done:,} of {total:,}"
        log.show(None if not total else (done + part) / total, of + state)

    def step_done(step: int, steps: int) -> None:
        show(step / steps, f", step {step:,} of {steps:,} of the next")

    try:
        with _beating(log), _told_of_parts(step_done):
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


def duration(seconds: float) -> str:
    """The time in the largest unit of which there are enough, to two digits."""
    name, length = next((each for each in _UNITS if seconds < _MOST * each[1]), _UNITS[-1])
    count = max(1, round(seconds / length))
    return f"{count:,} {name}{'' if count == 1 else 's'}"


_LISTENER: ContextVar[Callable[[str], None] | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Callable[[str], None]) -> Iterator[None]:
    """Give the lines that announce long work to `listener`; it may raise to end the work."""

    def heard(line: str) -> None:
        _note_line()
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
        return _print
    return listener


def _print(line: str) -> None:
    _note_line()
    print(line, file=sys.stderr, flush=True)


def _note_line() -> None:
    _SAID.last = time.monotonic()


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
            with _beating(log):
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
