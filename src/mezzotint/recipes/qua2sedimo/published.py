"""The published levels: each layer, or each block, takes what scores best, whatever it stores."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mezzotint.recipes.qua2sedimo.variants import Variants, best_variants
from mezzotint.recipes.search_space import Floats, Group, Rows, SearchSpace

BlockScoring = Callable[[Group, Rows], Floats]
"""Scores of some variants of one block."""


def op_level(space: SearchSpace, scores: Floats) -> Rows:
    """The format of the highest score of every weight; of equals, the one of fewer bytes.

    Args:
        space: the weights and their formats.
        scores: at hop 0, [weights, formats].
    """
    best = scores == scores.max(axis=1, keepdims=True)
    return np.asarray(np.where(best, space.bytes, np.iinfo(np.int64).max).argmin(axis=1))


def block_level(space: SearchSpace, score: BlockScoring) -> Rows:
    """The best of all variants of every block."""
    found = np.zeros(len(space.keys), dtype=np.int64)
    for front in block_fronts(space, score):
        found[list(front.group.members)] = front.best
    return found


def block_fronts(space: SearchSpace, score: BlockScoring) -> tuple[Variants, ...]:
    """The Pareto fronts between score and bytes of all blocks."""

    def of_group(group: Group) -> Variants:
        return best_variants(space, group, lambda variants: score(group, variants))

    return tuple(map(of_group, space.groups))
