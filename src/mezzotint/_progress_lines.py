"""Lines on standard error about long work, where no bar can be seen: few at any length."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_FIRST_LINE, _LONGEST = 2.0, 120.0
"""Seconds before the first line of a log, and at the most between two."""

_UNITS = (("second", 1), ("minute", 60), ("hour", 3600), ("day", 86400))
_MOST = 90
"""Largest count of a unit of time; beyond it the next larger unit is told."""


class _Said:
    """Memory of the lines that work of any kind has printed: the time of the last one."""

    last = -math.inf


_SAID = _Said()

_BEATING: list[Log] = []
"""Logs of work that goes on, innermost last: that one alone tells so while nothing ends."""


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
                quiet = now - _SAID.last
                if quiet < self._wait:
                    self._next = now + self._wait - quiet
                elif _BEATING[-1:] in ([], [self]):
                    self._tell(now)
                else:  # work within it has a name of its own
                    self._next = now + self._wait

    @property
    def until_next(self) -> float:
        """Seconds to the next line."""
        return max(0.0, self._next - self.clock())

    def end(self, *, always: bool = False) -> None:
        """Print how long it took, if anything was printed of it; or if it took long."""
        took = self.clock() - self._started
        if self._shown or (always and took >= _FIRST_LINE):
            print_line(f"{self._description}: ended after {duration(took)}")

    def _tell(self, now: float) -> None:
        self._wait = min(2 * self._wait, _LONGEST)
        self._next, self._shown = now + self._wait, True
        took = duration(now - self._started)
        print_line(f"{self._description}: {self._state}{took}{self._left(now)}")

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
def beating(log: Log) -> Iterator[None]:
    """Let a log tell that work goes on while a piece of it takes long."""
    if log.clock is not time.monotonic:  # one that moves when it is asked is asked by nobody else
        yield
        return
    stopped = threading.Event()

    def beat() -> None:
        while not stopped.wait(log.until_next):
            log.beat()

    thread = threading.Thread(target=beat, daemon=True)
    _BEATING.append(log)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
        _BEATING.remove(log)


def duration(seconds: float) -> str:
    """The time in the largest unit of which there are enough, to two digits."""
    name, length = next((each for each in _UNITS if seconds < _MOST * each[1]), _UNITS[-1])
    count = max(1, round(seconds / length))
    return f"{count:,} {name}{'' if count == 1 else 's'}"


def print_line(line: str) -> None:
    """Print a line on standard error at once."""
    note_line()
    print(line, file=sys.stderr, flush=True)


def note_line() -> None:
    """Remember that people have been told something just now."""
    _SAID.last = time.monotonic()
