"""Variants of a block: combinations of its weights' formats, and those that are worth having."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mezzotint.recipes.search_space import Floats, Group, Rows, SearchSpace

BATCH = 4096
"""Variants that are in memory at once, beside the front of those seen."""

WHOLE = 1296
"""Blocks of no more variants are looked at whole where every variant needs a prediction."""

SCORED = 36
"""The same where scores, which take less time than predictions, tell which of them to look at."""

SPREAD = 128
"""Variants of a block among which the program may choose where it has to use up bytes."""

SHOWN = 32
"""Variants of a front that are looked at."""

Scoring = Callable[[Rows], Floats]
"""Variants of one block → their scores; larger is better."""


@dataclass(frozen=True, eq=False)
class Variants:
    """Some variants of one group of weights.

    Attributes:
        group: whose they are.
        formats: of each weight of the group, int64 [n, members].
        bytes: that each stores, int64 [n].
        scores: larger is better, float64 [n].
    """

    group: Group
    formats: Rows
    bytes: Rows
    scores: Floats

    @property
    def best(self) -> Rows:
        """Formats of the variant of the highest score; of equals, of the one of fewer bytes."""
        return np.asarray(self.formats[np.lexsort((self.bytes, -self.scores))[0]])

    def front(self) -> Variants:
        """Those that no other beats in score with as few bytes, by rising bytes and scores."""
        order = np.lexsort((-self.scores, self.bytes))
        ordered = self.scores[order]
        before = np.concatenate(([-np.inf], np.maximum.accumulate(ordered)[:-1]))
        return self.taken(order[ordered > before])

    def front_with(self, formats: Rows) -> Variants:
        """The front, and one variant more, [members], where it is not on it."""
        front = self.front()
        if (front.formats == formats).all(axis=1).any():
            return front
        own = (self.formats == formats).all(axis=1)
        return front.joined(self.taken(np.flatnonzero(own)[:1]))

    def thinned(self, most: int = SHOWN) -> Variants:
        """So many of them at the most, the first and the last among them."""
        if len(self.bytes) <= most:
            return self
        return self.taken(np.linspace(0, len(self.bytes) - 1, most).astype(int))

    def of_all_bytes(self, most: int = SPREAD) -> Variants:
        """The best of each number of bytes, for limits below which bytes may not fall.

        Args:
            most: so many at the most: the front, and an even choice of what it lacks.
        """
        order = np.lexsort((-self.scores, self.bytes))
        first = np.concatenate(([True], np.diff(self.bytes[order]) > 0))
        best, front = self.taken(order[first]), self.front()
        rest = best.taken(np.flatnonzero(~np.isin(best.bytes, front.bytes)))
        return front.joined(rest.thinned(max(most - len(front.bytes), 0)))

    def taken(self, places: NDArray[np.intp]) -> Variants:
        """Those at some places."""
        return Variants(self.group, self.formats[places], self.bytes[places], self.scores[places])

    def joined(self, other: Variants) -> Variants:
        """These and others of the same group."""
        return Variants(
            self.group,
            np.concatenate((self.formats, other.formats)),
            np.concatenate((self.bytes, other.bytes)),
            np.concatenate((self.scores, other.scores)),
        )


def variant_count(space: SearchSpace, group: Group) -> int:
    """Number of variants that a group has."""
    return int(len(space.formats) ** len(group.members))


def every_variant(space: SearchSpace, group: Group, batch: int = BATCH) -> Iterator[Rows]:
    """All variants of a group, some at a time."""
    shape = (len(space.formats),) * len(group.members)
    for start in range(0, variant_count(space, group), batch):
        indices = np.arange(start, min(start + batch, variant_count(space, group)))
        yield np.stack(np.unravel_index(indices, shape), axis=1).astype(np.int64)


def near_variants(space: SearchSpace, current: Rows, changes: int) -> Rows:
    """The variants that differ from the current one in at most so many weights, itself first."""
    found = [current]
    for count in range(1, min(changes, len(current)) + 1):
        for places in itertools.combinations(range(len(current)), count):
            others = [[f for f in range(len(space.formats)) if f != current[p]] for p in places]
            for formats in itertools.product(*others):
                variant = current.copy()
                variant[list(places)] = formats
                found.append(variant)
    return np.array(found, dtype=np.int64)


def best_variants(space: SearchSpace, group: Group, score: Scoring, batch: int = BATCH) -> Variants:
    """The Pareto front between score and bytes of all variants of a group."""
    front: Variants | None = None
    for formats in every_variant(space, group, batch):
        scored = Variants(group, formats, space.group_bytes(group, formats), score(formats))
        front = (scored if front is None else front.joined(scored)).front()
    assert front is not None, "a group has at least one member, and a member one format"
    return front
