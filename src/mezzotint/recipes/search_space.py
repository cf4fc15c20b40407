"""Configurations of one model as numbers: a row of format indices, and the bytes that it stores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mezzotint.errors import UsageError

Rows = NDArray[np.int64]
"""Configurations [n, nodes], variants [n, weights of a block]: indices of formats."""

Floats = NDArray[np.float64]

Value = Callable[[Rows], Floats]
"""Configurations [n, weights] → what is predicted for them, in the target's units [n]; larger is
better."""


@dataclass(frozen=True)
class Group:
    """Weights that are decided together: those of a block, or a single one.

    Attributes:
        name: for people; no two groups of a model have the same.
        members: positions among the model's weights.
    """

    name: str
    members: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class SearchSpace:
    """The weights of a model, the formats that each may take, and the bytes of every pair.

    Attributes:
        keys: of the weights, in order of execution.
        formats: names of the formats.
        bytes: stored bytes, int64 [weights, formats].
        sizes: number of weights in each, int64 [weights].
        groups: every weight is in exactly one.

    Raises:
        UsageError: the shapes disagree, or the groups leave a weight out or have one twice.
    """

    keys: tuple[str, ...]
    formats: tuple[str, ...]
    bytes: Rows
    sizes: Rows
    groups: tuple[Group, ...]

    def __post_init__(self) -> None:
        if self.bytes.shape != (len(self.keys), len(self.formats)):
            raise UsageError(
                f"bytes: have shape {list(self.bytes.shape)}; give a row for each of "
                f"{len(self.keys)} weights and a column for each of {len(self.formats)} formats"
            )
        counts = Counter(member for group in self.groups for member in group.members)
        for position, key in enumerate(self.keys):
            if counts[position] != 1:
                raise UsageError(
                    f"weight {key}: is in {counts[position]} blocks; give each in exactly one"
                )

    @cached_property
    def single(self) -> tuple[Group, ...]:
        """Every weight in a group of its own."""
        return tuple(Group(key, (position,)) for position, key in enumerate(self.keys))

    def stored(self, configurations: Rows) -> Rows:
        """Stored bytes of the weights, [n]."""
        chosen: Rows = self.bytes[np.arange(len(self.keys)), configurations]
        return np.asarray(chosen.sum(axis=-1))

    def bits(self, configurations: Rows) -> Floats:
        """Stored bits per weight, [n]."""
        return np.asarray(self.stored(configurations) * 8 / self.sizes.sum(), dtype=np.float64)

    def group_bytes(self, group: Group, variants: Rows) -> Rows:
        """Stored bytes of the variants of one group, [n]."""
        return np.asarray(self.bytes[np.array(group.members), variants].sum(axis=-1))

    def row(self, configuration: Mapping[str, str]) -> Rows:
        """Format indices of a configuration by key.

        Raises:
            UsageError: a weight has no format, or one that is not among those of the model.
        """
        places = {name: index for index, name in enumerate(self.formats)}
        found = []
        for key in self.keys:
            name = configuration.get(key)
            if name not in places:
                raise UsageError(f"weight {key}: format {name!r} is none of {list(self.formats)}")
            found.append(places[name])
        return np.array(found, dtype=np.int64)

    def named(self, configuration: Rows) -> dict[str, str]:
        """Key → format of one configuration."""
        return {
            key: self.formats[index] for key, index in zip(self.keys, configuration, strict=True)
        }


def with_members(configuration: Rows, members: Sequence[int], variants: Rows) -> Rows:
    """Copies of a configuration, [variants, weights], in which the members have each variant."""
    found = np.repeat(configuration[None], len(variants), axis=0)
    found[:, list(members)] = variants
    return found


def single_changes(space: SearchSpace, value: Value, incumbent: Rows) -> Floats:
    """Change of the prediction when one weight takes one format, [weights, formats]."""
    formats = np.arange(len(space.formats), dtype=np.int64)[:, None]
    rows = [with_members(incumbent, group.members, formats) for group in space.single]
    found = value(np.concatenate(rows)) - value(incumbent[None])
    return found.reshape(len(space.keys), len(space.formats))
