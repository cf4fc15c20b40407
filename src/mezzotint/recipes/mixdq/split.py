"""One average split between two groups of layers, in many ways (MixDQ, arXiv 2405.17873)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from mezzotint.allocation import decimal, exact
from mezzotint.errors import UsageError


@dataclass(frozen=True)
class Split:
    """Shares of an average that two groups get.

    Attributes:
        average: Bits per weight of both groups together.
        ratio: `first / second`.
        first: Average bits of the first group; in MixDQ the layers that shape the content.
        second: Average bits of the second group; in MixDQ those that shape the quality.
    """

    average: float
    ratio: float
    first: float
    second: float


@dataclass(frozen=True)
class Span:
    """Evenly spaced numbers, both ends included.

    Args:
        low: The first.
        high: The last; as `low` where there is but one.
        count: How many.
    """

    low: float
    high: float
    count: int

    def __post_init__(self) -> None:
        low, high = exact(self.low, "low"), exact(self.high, "high")
        if low > high or (self.count == 1) != (low == high) or self.count < 1:
            raise UsageError(
                f"{self.count} numbers from {self.low} to {self.high}; give a rising span and at "
                "least 2, or the same number twice and 1"
            )

    def exactly(self) -> Iterator[Fraction]:
        """The numbers, computed from the decimals that the ends print as."""
        low, high = Fraction(str(self.low)), Fraction(str(self.high))
        for index in range(self.count):
            yield low + (high - low) * Fraction(index, max(self.count - 1, 1))


@dataclass(frozen=True)
class Divisions:
    """The splits to try.

    Args:
        averages: Averages to try, as offsets from the target in bits.
        ratios: Ratios `first / second` to try; > 0.
        first: Least and most average bits of the first group, both included.
        second: The same of the second group.
    """

    averages: Span
    ratios: Span
    first: tuple[float, float]
    second: tuple[float, float]

    def __post_init__(self) -> None:
        if not self.ratios.low > 0:
            raise UsageError(f"ratios: begin at {self.ratios.low}; give ratios above zero")
        for name, (least, most) in (("first", self.first), ("second", self.second)):
            if exact(least, name) > exact(most, name):
                raise UsageError(f"{name}: the bounds {least} and {most} are swapped")

    def admits(self, first: Fraction, second: Fraction) -> bool:
        """True where both averages are within their bounds."""
        return all(
            Fraction(str(least)) <= average <= Fraction(str(most))
            for average, (least, most) in ((first, self.first), (second, self.second))
        )


WEIGHT_DIVISIONS = Divisions(Span(-0.3, 0.0, 10), Span(0.46, 1.36, 10), first=(2, 8), second=(4, 8))
"""MixDQ's for weights, whose candidates are 2, 4 and 8 bits in the first group, else 4 and 8."""

ACTIVATION_DIVISIONS = Divisions(
    Span(-0.3, 0.0, 10), Span(0.94, 1.09, 20), first=(4, 8), second=(4, 8)
)
"""MixDQ's for activations, whose candidates are 4 and 8 bits in both groups."""


def splits(target: float, size_ratio: float | Fraction, divisions: Divisions) -> tuple[Split, ...]:
    """Split an average between two groups in every way that keeps to the bounds.

    With `r = size(first) / size(second)` and `k` the ratio of the groups' averages,

        second = average * (1 + r) / (k * r + 1),    first = k * second.

    Arithmetic is exact on the decimals that the numbers print as, so a split that just meets a
    bound is never lost to rounding.

    Args:
        target: The largest average, in bits.
        size_ratio: `r`; ≥ 0.
        divisions: What to try.

    Returns:
        Splits in the order of averages, then of ratios; none if none keeps to the bounds.

    Raises:
        BudgetError: The target is not finite.
        UsageError: The size ratio is negative or not finite.
    """
    ratio = Fraction(exact(size_ratio, "size_ratio"))
    if ratio < 0:
        raise UsageError(f"size_ratio: is {size_ratio}; give a ratio of sizes, zero or more")
    found = []
    for offset in divisions.averages.exactly():
        average = decimal(target, "target") + offset
        for k in divisions.ratios.exactly():
            second = average * (1 + ratio) / (k * ratio + 1)
            first = k * second
            if divisions.admits(first, second):
                found.append(Split(*map(float, (average, k, first, second))))
    return tuple(found)
