"""The bytes that a budget asks for: the most, and the least of what still counts as those."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from mezzotint.allocation import Limit, Option, Problem, solve
from mezzotint.errors import InfeasibleBudgetError
from mezzotint.recipes.costs import BYTES, rounded_up
from mezzotint.recipes.qua2sedimo.variants import Variants
from mezzotint.recipes.search_space import Group, Rows, SearchSpace

CLOSE = 0.005
"""Share of the bytes asked for that may be left over."""

CHANGED = "changed blocks"


@dataclass(frozen=True)
class ByteWindow:
    """Stored bytes of all weights together, both ends included.

    Attributes:
        most: what the budget allows.
        least: what makes up for it.
        proven: whether nothing that can be stored lies between the two.
    """

    most: int
    least: int
    proven: bool = False

    def holds(self, stored: int) -> bool:
        """True for bytes in the window."""
        return self.least <= stored <= self.most


def byte_window(space: SearchSpace, most: float) -> ByteWindow:
    """The window within `CLOSE` below the bytes asked for, or the nearest that can be met.

    Args:
        space: the weights and their formats.
        most: bytes of all weights.

    Raises:
        InfeasibleBudgetError: the smallest configuration exceeds them, or the largest falls short;
            names the nearest that can be met.
    """
    ends = int(space.bytes.min(axis=1).sum()), int(space.bytes.max(axis=1).sum())
    asked, weights = int(most), int(space.sizes.sum())
    if asked < ends[0]:
        raise InfeasibleBudgetError(
            f"weight_bits {asked * 8 / weights:.4g} cannot be met: with codebooks and scales these "
            f"formats need {rounded_up(ends[0] * 8 / weights)} bits per weight or more, which are "
            f"{ends[0]} bytes for all weights"
        )
    least = int(np.ceil(most * (1 - CLOSE)))
    if ends[1] < least:
        raise InfeasibleBudgetError(
            f"weight_bits {asked * 8 / weights:.4g} cannot be used up: these formats take "
            f"{rounded_up(ends[1] * 8 / weights)} bits per weight at the most; ask for that"
        )
    try:
        solve(_storing(space), [Limit(BYTES, asked, least)])
    except InfeasibleBudgetError:  # proven: nothing lies between
        fullest = solve(_storing(space, fullest=True), [Limit(BYTES, asked)]).used[BYTES]
        return ByteWindow(asked, int(fullest), proven=True)
    return ByteWindow(asked, least)


def _storing(space: SearchSpace, *, fullest: bool = False) -> Problem:
    """A program that asks for nothing but bytes: any, or as many as there may be."""
    return Problem(
        {
            key: tuple(
                Option(int(size), float(size) if fullest else 0.0, {BYTES: int(size)})
                for size in np.unique(sizes)
            )
            for key, sizes in zip(space.keys, space.bytes, strict=True)
        }
    )


@dataclass(frozen=True, eq=False)
class Near:
    """The neighbourhood of a configuration.

    Attributes:
        configuration: format indices [weights].
        groups: that may differ from it, at the most.
    """

    configuration: Rows
    groups: int

    def of(self, group: Group) -> Rows:
        """The variant of a group there, [members]."""
        return self.configuration[list(group.members)]


def best_within(
    space: SearchSpace,
    variants: Sequence[Variants],
    window: ByteWindow,
    near: Near | None = None,
) -> Rows | None:
    """The configuration of the largest Σ scores whose bytes are in a window.

    Args:
        space: the weights and their formats.
        variants: of every group that decides.
        window: of bytes.
        near: where the configuration has to be; None for anywhere.

    Returns:
        Format indices [weights]; None where these variants do not meet the window there.
    """
    limits = [Limit(BYTES, window.most, window.least)]
    limits += [] if near is None else [Limit(CHANGED, near.groups)]
    problem = Problem(
        {
            each.group.name: tuple(
                Option(index, float(score), {BYTES: int(size), CHANGED: int(changed)})
                for index, (score, size, changed) in enumerate(
                    zip(each.scores, each.bytes, _changed(each, near), strict=True)
                )
            )
            for each in variants
        }
    )
    try:
        solution = solve(problem, limits)
    except InfeasibleBudgetError:
        return None
    found = np.zeros(len(space.keys), dtype=np.int64)
    for each in variants:
        found[list(each.group.members)] = each.formats[
            cast("int", solution.chosen[each.group.name])
        ]
    return found


def _changed(variants: Variants, near: Near | None) -> NDArray[np.bool_]:
    """Marks of the variants that differ from what is there, [n]."""
    if near is None:
        return np.zeros(len(variants.bytes), dtype=np.bool_)
    return np.asarray((variants.formats != near.of(variants.group)).any(axis=1))


def scored_singly(space: SearchSpace, scores: np.ndarray) -> tuple[Variants, ...]:
    """Every format of every weight by itself, with scores [weights, formats]."""
    formats = np.arange(len(space.formats), dtype=np.int64)[:, None]
    return tuple(_singly(space, group, formats, scores) for group in space.single)


def _singly(space: SearchSpace, group: Group, formats: Rows, scores: np.ndarray) -> Variants:
    (position,) = group.members
    return Variants(group, formats, space.bytes[position], np.asarray(scores[position]))
