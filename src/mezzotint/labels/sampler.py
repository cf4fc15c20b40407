"""Configurations drawn at random, for labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq

from mezzotint.errors import UsageError
from mezzotint.formats import parse_weight_format
from mezzotint.labels.configuration import Configuration

PUBLISHED_FORMATS = (
    "kmeans3/channel",
    "kmeans3/tensor",
    "uint3/channel",
    "kmeans4/channel",
    "kmeans4/tensor",
    "uint4/channel",
)
"""The six choices of Qua²SeDiMo (arXiv 2412.14628): K-Means C, K-Means A, UAQ, at 3 and 4 bits."""

_ATTEMPTS = 200
"""Draws of one configuration before it is said that there are no more different ones."""

_NEAREST_OF = 32
"""Draws at one average of stored bits, of which the nearest comes first."""

_GOLDEN = (5**0.5 - 1) / 2
"""Multiples of it, without their whole part, lie evenly in [0, 1) however many there are."""

_INNER = 0.01
"""Share of the range of stored bits at either end where hardly a choice is left."""

_STEEPEST = 1e4
"""Largest exponent, per bit, by which formats of fewer or of more bytes are preferred."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class StoredSizes:
    """Bytes that each weight stores under each format.

    Attributes:
        bytes: [weights, formats], in the order of keys and formats.
        weights: number of weights behind each key, [weights].
    """

    bytes: Ints
    weights: Ints

    @cached_property
    def bits(self) -> Floats:
        """Stored bits per weight of every choice, [weights, formats]."""
        return np.asarray(self.bytes * 8 / self.weights[:, None], dtype=np.float64)

    def average(self, indices: Ints) -> Floats:
        """Stored bits per weight of whole configurations.

        Args:
            indices: of formats, [..., weights].
        """
        stored = np.take_along_axis(self.bytes[None], indices.reshape(-1, len(self.bytes), 1), 2)
        total = stored.sum((1, 2)) * 8 / self.weights.sum()
        return np.asarray(total.reshape(indices.shape[:-1]), dtype=np.float64)


def check_count(weights: int, formats: int, count: int) -> None:
    """Refuse to draw more configurations than there are.

    Raises:
        UsageError: naming how many there are.
    """
    there_are = formats**weights
    if count > there_are:
        raise UsageError(
            f"count: is {count:,}, but {formats} formats of {weights} weights make {there_are:,} "
            "configurations; give that many at most, or more formats"
        )


def sampled(
    keys: Sequence[str],
    formats: Sequence[str],
    count: int,
    seed: int = 0,
    *,
    stratify: StoredSizes | None = None,
) -> tuple[Configuration, ...]:
    """Different configurations at random; fewer of the same seed are the first ones of more.

    For each a probability p is drawn from 0 to 1. Every weight takes, with probability p, one of
    the formats of fewer bits, else one of those of more, all equally likely. So Qua²SeDiMo draws,
    with 3 and 4 bits. The middle of the range of nominal bits divides them; formats of one width
    are all equally likely.

    With `stratify` averages of stored bits lie evenly between the smallest and the largest that
    there are: every weight takes a format with a probability that falls, or grows, exponentially
    with its stored bits, at the rate that makes the average expected.

    Args:
        keys: of the weights.
        formats: that each of them may take.
        count: how many.
        seed: 0 or more.
        stratify: bytes of every choice.

    Raises:
        UsageError: there are no weights, formats or not as many configurations; the seed is
            negative; or all formats store the same.
    """
    if not keys or not formats:
        raise UsageError("sampling: give one weight and one format at least")
    if count < 1 or seed < 0:
        raise UsageError(f"count {count}, seed {seed}: give 1 or more, and 0 or more")
    drawing = _Plain(formats, len(keys)) if stratify is None else _Stratified(stratify, seed)
    found: dict[Configuration, None] = {}
    for index in range(count):
        for row in drawing.rows(seed, index):
            named = Configuration(
                {key: formats[place] for key, place in zip(keys, row.tolist(), strict=True)}
            )
            if named not in found:
                found[named] = None
                break
        else:
            raise UsageError(
                f"count: {count} different configurations of {len(keys)} weights and "
                f"{len(formats)} formats cannot be found, {len(found)} can; ask for fewer"
            )
    return tuple(found)


@dataclass(frozen=True)
class _Plain:
    """Fewer bits with a probability that is itself drawn."""

    formats: Sequence[str]
    count: int

    @cached_property
    def _halves(self) -> tuple[Ints, Ints]:
        """Places of the formats of fewer, and of those of more bits."""
        bits = np.array([_nominal_bits(name) for name in self.formats])
        few = bits < (bits.min() + bits.max()) / 2
        if not few.any():
            few[:] = True
        more = ~few if not few.all() else few
        return np.flatnonzero(few), np.flatnonzero(more)

    def rows(self, seed: int, index: int) -> Iterator[Ints]:
        """Yield attempts at configuration `index`: places of formats, [weights]."""
        fewer, more = self._halves
        for attempt in range(_ATTEMPTS):
            random = np.random.default_rng([seed, index, attempt])
            takes_fewer = random.random(self.count) < random.random()
            yield np.where(
                takes_fewer, random.choice(fewer, self.count), random.choice(more, self.count)
            )


class _Stratified:
    """Averages of stored bits that lie evenly, in whatever number."""

    def __init__(self, sizes: StoredSizes, seed: int) -> None:
        bits, share = sizes.bits, sizes.weights / sizes.weights.sum()
        low, high = float(bits.min(1) @ share), float(bits.max(1) @ share)
        if low == high:
            raise UsageError("stratify: all formats store as many bytes; leave it out")
        self._sizes, self._share = sizes, share
        self._low, self._width = low, high - low
        self._offset = float(np.random.default_rng([seed]).random())

    def rows(self, seed: int, index: int) -> Iterator[Ints]:
        """Yield attempts at configuration `index`: places of formats, [weights]."""
        place = (self._offset + index * _GOLDEN) % 1
        target = self._low + self._width * min(max(place, _INNER), 1 - _INNER)
        rate = brentq(lambda each: self._expected(each) - target, -_STEEPEST, _STEEPEST)
        for attempt in range(_ATTEMPTS):
            random = np.random.default_rng([seed, index, attempt])
            shape = (_NEAREST_OF, *self._sizes.bits.shape)
            # The largest of logarithms with Gumbel noise is a draw from the distribution.
            drawn = (random.gumbel(size=shape) - rate * self._sizes.bits).argmax(2)
            yield from drawn[np.abs(self._sizes.average(drawn) - target).argsort(kind="stable")]

    def _expected(self, rate: float) -> float:
        """Average of stored bits where the logarithm of a probability falls by `rate` per bit."""
        bits = self._sizes.bits
        logarithms = -rate * bits
        shares = np.exp(logarithms - logarithms.max(1, keepdims=True))
        return float((shares * bits).sum(1) / shares.sum(1) @ self._share)


def _nominal_bits(name: str) -> float:
    """Bits per weight of a format, without scales and levels.

    Raises:
        UsageError: weights stay floating in it.
    """
    weight_format = parse_weight_format(name)
    if weight_format is None:
        raise UsageError(f"formats: {name!r} quantizes nothing; leave it out")
    return weight_format.bits
