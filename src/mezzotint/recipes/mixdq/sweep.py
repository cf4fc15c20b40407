"""Both groups' programs, solved for every split of an average (MixDQ, arXiv 2405.17873)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mezzotint.allocation import Allocation, BitProgram
from mezzotint.errors import InfeasibleBudgetError, UsageError
from mezzotint.recipes.mixdq.split import Divisions, Split, splits


@dataclass(frozen=True)
class Candidate:
    """Allocations of both groups under one split.

    Their objectives have units of their own and are never added: which candidate is best is for
    the images to say.
    """

    split: Split
    first: Allocation
    second: Allocation

    @property
    def bits(self) -> Mapping[str, int]:
        """Layer → bits, of both groups."""
        return {**self.first.bits, **self.second.bits}


def sweep(
    groups: tuple[BitProgram, BitProgram],
    target: float,
    divisions: Divisions,
    tolerance: float | None = None,
) -> tuple[Candidate, ...]:
    """Solve both groups' programs for every split of an average that the divisions admit.

    A split is dropped if either program has no solution in its window. Each group's program is
    solved once per distinct average.

    Args:
        groups: Two groups without a layer in common. The layers' sizes are in the same unit.
        target: The largest average over both groups, in bits.
        divisions: The splits to try.
        tolerance: `None` keeps each group to at most its average; otherwise within ± this, as in
            MixDQ's released code, with 0.02 bits.

    Returns:
        Candidates in the order of `splits`.

    Raises:
        BudgetError: The target or the tolerance is not finite, or the tolerance is negative.
        UsageError: A layer is in both groups.
    """
    first, second = groups
    for name in first.scores:
        if name in second.scores:
            raise UsageError(f"layer {name!r}: is in both groups; leave it in one")
    firsts, seconds = _Solved(first, tolerance), _Solved(second, tolerance)
    candidates = []
    for split in splits(target, first.size / second.size, divisions):
        one, other = firsts.at(split.first), seconds.at(split.second)
        if one is not None and other is not None:
            candidates.append(Candidate(split, one, other))
    return tuple(candidates)


class _Solved:
    """A group's programs by their averages, each solved once."""

    def __init__(self, group: BitProgram, tolerance: float | None) -> None:
        self._group = group
        self._tolerance = tolerance
        self._by_average: dict[float, Allocation | None] = {}

    def at(self, average: float) -> Allocation | None:
        """The allocation, or None if there is none in the window."""
        if average not in self._by_average:
            try:
                self._by_average[average] = self._group.allocate(average, self._tolerance)
            except InfeasibleBudgetError:
                self._by_average[average] = None
        return self._by_average[average]
