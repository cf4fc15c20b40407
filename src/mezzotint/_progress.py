"""A progress bar for long loops that leaves no trace."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
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
