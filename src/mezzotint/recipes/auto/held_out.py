"""Recorded samples that are set aside, so that a gain is judged on others than it was found on."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mezzotint.models import Call, batch_size, component_of, rows_of

EVERY = 4
"""One sample of so many is held out."""

FEWEST = 2
"""Held-out samples without which there is no standard error."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """A division of the recorded samples.

    Attributes:
        others: calls of the samples that are not held out.
        held: calls of those that are.
        samples: the latter: indices among all rows of all calls, in their order.
        shown: which they are, for people.
        apart: True where each component of a joint module has samples in both parts: what is
            known of a component by none would cost nothing.
    """

    others: tuple[Call, ...]
    held: tuple[Call, ...]
    samples: tuple[int, ...]
    shown: str
    apart: bool = True

    @property
    def enough(self) -> bool:
        """True where something can be found on some samples, and judged on others."""
        return self.apart and bool(self.others) and len(self.samples) >= FEWEST


def independent(call: Call) -> bool:
    """True where the samples of a call can be told apart."""
    return bool(batch_size(call))


def hold_out(calls: Sequence[Call], apart: Callable[[Call], bool] = independent) -> HeldOut:
    """Set one sample of four aside; a whole call where its samples have to stay together.

    Args:
        calls: recorded.
        apart: whether the samples of a call may go different ways.
    """
    return _divided(calls, apart, lambda turn: turn % EVERY == EVERY - 1, f"every {EVERY}th")


def halved(calls: Sequence[Call], apart: Callable[[Call], bool] = independent) -> HeldOut:
    """Set half of the samples aside, in the order of Thue and Morse, which has no period.

    Else, of two samples of every call, the halves might be those of guidance.
    """
    return _divided(calls, apart, lambda turn: turn.bit_count() % 2 == 1, "half")


def _divided(
    calls: Sequence[Call],
    apart: Callable[[Call], bool],
    aside: Callable[[int], bool],
    share: str,
) -> HeldOut:
    others: list[Call] = []
    held: list[Call] = []
    samples: list[int] = []
    first = 0
    turns: dict[str | None, int] = {}  # of each component its own: all have samples in both parts
    for call in calls:
        rows = 0 if call.output is None else len(call.output)
        parts = [[row] for row in range(rows)] if apart(call) else [list(range(rows))]
        taken: list[int] = []
        for part in parts:
            turn = turns.setdefault(component_of(call), 0)
            taken += part if aside(turn) else []
            turns[component_of(call)] = turn + 1
        others += _of_rows(call, [row for row in range(rows) if row not in taken])
        held += _of_rows(call, taken)
        samples += [first + row for row in taken]
        first += rows
    shown = f"{share} of {first} recorded samples"
    everywhere = all({*map(component_of, each)} == {*turns} for each in (others, held))
    return HeldOut(tuple(others), tuple(held), tuple(samples), shown, everywhere)


def _of_rows(call: Call, rows: Sequence[int]) -> list[Call]:
    """The call with some of its rows; none without any."""
    if call.output is None or not rows:
        return []
    return [call if len(rows) == len(call.output) else rows_of(call, rows)]


@dataclass(frozen=True)
class Gain:
    """Fall of the noise on held-out samples.

    Attributes:
        mean: over the samples; negative for a rise.
        error: its standard error.
    """

    mean: float
    error: float

    @property
    def real(self) -> bool:
        """True where the fall is more than its standard error."""
        return self.mean > self.error


def gain(before: Sequence[float], after: Sequence[float], samples: Sequence[int]) -> Gain:
    """Fall of the noise from one plan to another on some of all samples."""
    falls = [before[index] - after[index] for index in samples]
    error = statistics.stdev(falls) / math.sqrt(len(falls))
    return Gain(statistics.fmean(falls), error)
