"""Recorded samples that are set aside, so that a gain is judged on others than it was found on.

They are set aside from the search for the gain alone: ranges, means and Gram matrices are of all.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from mezzotint.models import Call, batch_size, rows_of

EVERY = 4
"""One sample of so many is held out."""

FEWEST = 2
"""Held-out samples without which there is no standard error."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """A division of the recorded samples.

    Attributes:
        others: calls of the samples that are not held out.
        samples: those that are: indices among all rows of all calls, in their order.
        shown: which they are, for people.
    """

    others: tuple[Call, ...]
    samples: tuple[int, ...]
    shown: str

    @property
    def enough(self) -> bool:
        """True where something can be found on some samples, and judged on others."""
        return bool(self.others) and len(self.samples) >= FEWEST


def hold_out(calls: Sequence[Call]) -> HeldOut:
    """Set one sample of four aside; a whole call where its samples cannot be told apart."""
    others: list[Call] = []
    held: list[int] = []
    turn = first = 0
    for call in calls:
        rows = 0 if call.output is None else len(call.output)
        parts = [[row] for row in range(rows)] if batch_size(call) else [list(range(rows))]
        kept: list[int] = []
        for part in parts:
            turn += 1
            if turn % EVERY:
                kept += part
            else:
                held += [first + row for row in part]
        if len(kept) == rows:
            others.append(call)
        elif kept:
            others.append(rows_of(call, kept))
        first += rows
    return HeldOut(tuple(others), tuple(held), f"every {EVERY}th of {first} recorded samples")


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
