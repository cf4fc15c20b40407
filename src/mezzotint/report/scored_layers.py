"""Scores of every choice of every layer, and how sensitive layers are by them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mezzotint.errors import UsageError
from mezzotint.formats import parse_weight_format

Floats = NDArray[np.float64]

UNIFORM_SCHEME = "uint/channel"

_METHODS = {"kmeans": "K-Means", "uint": "uniform"}


def method_of(weight_format: str) -> str:
    """The published name of a format's method, or its own scheme: `lut` of `lut3/channel`."""
    scheme = weight_format.partition("/")[0].rstrip("0123456789")
    return _METHODS.get(scheme, scheme)


def nominal_bits(weight_format: str) -> float:
    """Bits of an index or code of a format, without scales and codebooks."""
    parsed = parse_weight_format(weight_format)
    return 16.0 if parsed is None else float(parsed.bits)


@dataclass(frozen=True, eq=False)
class ScoredLayers:
    """Scores of every format of every weight, by fold; the higher, the better.

    Attributes:
        keys: of the weights, in order of execution.
        roles: of each.
        blocks: name of the block that each is in.
        kinds: kind of that block.
        formats: names.
        scores: float64 [folds, weights, formats].
        bytes: stored, [weights, formats].
        weights: number in each.

    Raises:
        UsageError: shapes disagree, or a score is not finite.
    """

    keys: tuple[str, ...]
    roles: tuple[str, ...]
    blocks: tuple[str, ...]
    kinds: tuple[str, ...]
    formats: tuple[str, ...]
    scores: Floats
    bytes: Floats
    weights: Floats

    def __post_init__(self) -> None:
        shape = (len(self.keys), len(self.formats))
        if self.scores.ndim != 3 or self.scores.shape[1:] != shape or self.bytes.shape != shape:
            raise UsageError(
                f"scores: have shape {list(self.scores.shape)}; give folds × {shape[0]} weights × "
                f"{shape[1]} formats"
            )
        if not np.isfinite(self.scores).all():
            fold, weight, index = map(int, np.argwhere(~np.isfinite(self.scores))[0])
            raise UsageError(
                f"scores: that of {self.keys[weight]} at {self.formats[index]} is not finite in "
                f"fold {fold}"
            )

    @property
    def is_unet(self) -> bool:
        """True for a model with residual blocks of convolutions."""
        return "resnet_conv" in self.roles

    @cached_property
    def bits(self) -> Floats:
        """Nominal bits of each format."""
        return np.array([nominal_bits(name) for name in self.formats])

    @cached_property
    def schemes(self) -> tuple[str, ...]:
        """Scheme and granularity of each format, without its bits: `kmeans/channel`."""
        parts = (name.partition("/") for name in self.formats)
        return tuple(f"{scheme.rstrip('0123456789')}/{rest}" for scheme, _, rest in parts)

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """Method of each format."""
        return tuple(map(method_of, self.formats))

    @cached_property
    def stored_bits(self) -> Floats:
        """Stored bits per weight, [weights, formats]."""
        return self.bytes * 8 / self.weights[:, None]

    def places(self, *roles: str) -> NDArray[np.intp]:
        """Positions of the weights of some roles."""
        return np.flatnonzero(np.isin(self.roles, roles))

    def sensitivity(self, *, per_stored_bit: bool) -> Floats:
        """Gain that one bit more brings, float64 [folds, weights].

        The mean over all pairs of formats of one scheme and granularity whose bits differ.

        Args:
            per_stored_bit: divide by the stored bits that it takes, codebooks and scales included,
                and not by nominal ones.
        """
        gains = [
            (self.scores[:, :, high] - self.scores[:, :, low])
            / self._more(low, high, per_stored_bit=per_stored_bit)
            for low, high in self._pairs
        ]
        if not gains:
            raise UsageError(
                f"formats: {', '.join(self.formats)} hold no two widths of one method; sensitivity "
                "is what a bit more brings"
            )
        return np.asarray(np.mean(gains, axis=0))

    @cached_property
    def _pairs(self) -> tuple[tuple[int, int], ...]:
        count = range(len(self.formats))
        return tuple(
            (a, b)
            for a in count
            for b in count
            if self.schemes[a] == self.schemes[b] and self.bits[a] < self.bits[b]
        )

    def _more(self, low: int, high: int, *, per_stored_bit: bool) -> Floats:
        if per_stored_bit:
            return self.stored_bits[:, high] - self.stored_bits[:, low]
        return np.full(len(self.keys), self.bits[high] - self.bits[low])

    def preference(self, scheme: str, *, at_stored_bits: bool) -> Floats:
        """Lead of a scheme's scores over uniform quantization, float64 [folds, weights].

        NaN where a weight gives no comparison.

        Args:
            scheme: such as `kmeans/channel`.
            at_stored_bits: compare at equal stored bits, on the lines through the scores of either,
                where both have some; and not at equal nominal bits.
        """
        first, second = (self._of_scheme(each) for each in (scheme, UNIFORM_SCHEME))
        if at_stored_bits:
            return self._at_stored_bits(first, second)
        pairs = [(a, b) for a in first for b in second if self.bits[a] == self.bits[b]]
        found = [self.scores[:, :, a] - self.scores[:, :, b] for a, b in pairs]
        return np.mean(found, axis=0) if found else np.full(self.scores.shape[:2], np.nan)

    def _of_scheme(self, scheme: str) -> NDArray[np.intp]:
        return np.flatnonzero(np.array(self.schemes) == scheme)

    def _at_stored_bits(self, first: NDArray[np.intp], second: NDArray[np.intp]) -> Floats:
        found = np.full(self.scores.shape[:2], np.nan)
        if not len(first) or not len(second):
            return found
        for weight, stored in enumerate(self.stored_bits):
            low = max(stored[first].min(), stored[second].min())
            high = min(stored[first].max(), stored[second].max())
            both = stored[np.concatenate((first, second))]
            points = both[(both >= low) & (both <= high)]
            for fold in range(len(self.scores)) if len(points) else ():
                scores = self.scores[fold, weight]
                one, other = (_line(stored[x], scores[x], points) for x in (first, second))
                found[fold, weight] = np.mean(one - other)
        return found


def _line(stored: Floats, scores: Floats, points: Floats) -> Floats:
    """Scores at some stored bits, on straight lines between those of the formats."""
    order = np.argsort(stored, kind="stable")
    return np.interp(points, stored[order], scores[order])
