"""A second round of labels, drawn near the incumbent, where the decision falls."""

from __future__ import annotations

import numpy as np

from mezzotint.recipes.qua2sedimo.byte_window import ByteWindow
from mezzotint.recipes.search_space import Rows, SearchSpace

CHANGES = 3
"""Weights of the incumbent that change in each."""

ATTEMPTS = 400
"""Draws for each configuration that is wanted."""


def nearby(space: SearchSpace, window: ByteWindow, incumbent: Rows, count: int, seed: int) -> Rows:
    """Distinct configurations of equal bytes: three weights of the incumbent have other formats.

    Args:
        space: the weights and their formats.
        window: of bytes that all of them are in.
        incumbent: format indices [weights].
        count: how many are wanted.
        seed: of the drawing.

    Returns:
        [n, weights]; fewer than `count` where that many are not found.
    """
    generator = np.random.default_rng(seed)
    others = len(space.formats) - 1
    changes = min(CHANGES, len(space.keys))
    found = dict[bytes, Rows]()
    for _ in range(ATTEMPTS * count):
        if len(found) == count or not others:
            break
        drawn = incumbent.copy()
        places = generator.choice(len(space.keys), changes, replace=False)
        drawn[places] = (drawn[places] + generator.integers(1, others + 1, changes)) % (others + 1)
        if window.holds(int(space.stored(drawn))):
            found.setdefault(drawn.tobytes(), drawn)
    return np.array(list(found.values()), dtype=np.int64).reshape(len(found), len(space.keys))
