"""A pipeline's own bar over its steps, in the place of which the work around it is told of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from types import TracebackType
from typing import Any, Self

from mezzotint._progress import part_done


class StepProgress:
    """Stands for the bar that a pipeline makes of its steps; `pipe.progress_bar` makes one."""

    def __init__(self, iterable: Iterable[Any] | None = None, total: int | None = None) -> None:
        self._iterable = iterable
        self._total = len(iterable) if isinstance(iterable, Sized) else total
        self._done = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Bars are closed by this; there is nothing to close."""

    def __iter__(self) -> Iterator[Any]:
        # Timesteps are tensors, whose truth is that of their only value.
        for item in () if self._iterable is None else self._iterable:
            yield item
            self.update()

    def update(self, steps: int = 1) -> None:
        """Count steps that are done."""
        self._done += steps
        if self._total:
            part_done(self._done, self._total)

    def close(self) -> None:
        """End the bar, as pipelines do; nothing is shown that would have to go."""

    def set_description(self, *_: object, **__: object) -> None:
        """Name the bar, as some pipelines do; the work around it has a name."""
