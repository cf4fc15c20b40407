"""Search spaces whose truth is known: quality adds up over weights, plus what pairs do."""

from __future__ import annotations

import numpy as np

from mezzotint.recipes.search_space import Group, SearchSpace

FORMATS = (
    "kmeans3/channel",
    "kmeans4/channel",
    "kmeans3/tensor",
    "kmeans4/tensor",
    "uint3/channel",
    "uint4/channel",
)


def space_of(blocks: tuple[int, ...] = (2, 1, 3, 1), seed: int = 0) -> SearchSpace:
    """Blocks of so many weights each, of sizes between 1,000 and 5,000."""
    generator = np.random.default_rng(seed)
    count = sum(blocks)
    sizes = generator.integers(1000, 5000, count)
    rows = sizes // 100
    overhead = np.stack(
        [rows * 16, rows * 32, 16 + 0 * rows, 32 + 0 * rows, rows * 4, rows * 4], axis=1
    )
    widths = np.array([3, 4, 3, 4, 3, 4])
    stored = -(-sizes[:, None] * widths // 8) + overhead
    starts = np.cumsum((0, *blocks))
    groups = tuple(
        Group(f"block {index}", tuple(range(starts[index], starts[index + 1])))
        for index in range(len(blocks))
    )
    keys = tuple(f"layer{index}" for index in range(count))
    return SearchSpace(keys, FORMATS, stored.astype(np.int64), sizes.astype(np.int64), groups)


def gains_of(space: SearchSpace, seed: int = 1) -> np.ndarray:
    """What each format of each weight adds to the target: four bits more than three."""
    generator = np.random.default_rng(seed)
    gains = -generator.random((len(space.keys), len(space.formats)))
    gains[:, 0::2] *= 4
    return gains


def linear(gains: np.ndarray):
    """The value of configurations when gains add up."""

    def value(configurations: np.ndarray) -> np.ndarray:
        return gains[np.arange(len(gains)), configurations].sum(axis=1)

    return value


def every_configuration(space: SearchSpace) -> np.ndarray:
    shape = (len(space.formats),) * len(space.keys)
    indices = np.arange(len(space.formats) ** len(space.keys))
    return np.stack(np.unravel_index(indices, shape), axis=1)
