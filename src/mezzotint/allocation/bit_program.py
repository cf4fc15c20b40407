"""A group of layers whose scores add up, and the integer program that gives them bits."""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import cast

from mezzotint.allocation.solver import solve
from mezzotint.allocation.values import Limit, Option, Problem, exact
from mezzotint.errors import BudgetError, UsageError

_RESOURCE = "average bits"


@dataclass(frozen=True)
class Allocation:
    """The bits of every layer of a group.

    Attributes:
        bits: Layer → chosen bits, in the order of the group's scores.
        average: Their average over the group, weighted by size.
        objective: Sum of the chosen scores.
        gap: As `Solution.gap`; 0 is proven optimal.
    """

    bits: Mapping[str, int]
    average: float
    objective: float
    gap: float


@dataclass(frozen=True)
class BitProgram:
    """Layers measured in one unit, which share one average.

    Args:
        scores: Layer → candidate bits → score; larger is better, any unit.
        sizes: Layer → number of weights, or any measure proportional to it; ≥ 0.
        bits: Layer → candidate bits → what counts as its bits in the average, e.g. stored bits
            per weight, scales included. `None` counts the candidates themselves.

    Raises:
        UsageError: A layer lacks scores, a size or bits, or has bad ones.
    """

    scores: Mapping[str, Mapping[int, float]]
    sizes: Mapping[str, float]
    bits: Mapping[str, Mapping[int, float]] | None = None

    def __post_init__(self) -> None:
        for name in self.scores:
            if name not in self.sizes:
                raise UsageError(f"layer {name!r}: has scores but no size; add it to sizes")
        for name in self.sizes:
            if name not in self.scores:
                raise UsageError(f"layer {name!r}: has a size but no scores; add it to scores")
        for name, size in self._exact_sizes.items():
            if size < 0:
                raise UsageError(f"layer {name!r}: its size {self.sizes[name]} is negative")
        if self.scores and not self.size:
            raise UsageError("sizes: all are zero; give the layers' numbers of weights")
        _ = self._problem

    @cached_property
    def size(self) -> Fraction:
        """Total size of the layers, exactly."""
        return sum(self._exact_sizes.values(), Fraction(0))

    def allocate(self, average_bits: float, tolerance: float | None = None) -> Allocation:
        """Choose the bits that make the total score largest under an average.

        Args:
            average_bits: The average to keep to, taken as the decimal it prints as.
            tolerance: `None` for at most that average, otherwise within ± this.

        Raises:
            InfeasibleBudgetError: No choice has such an average; names the nearest feasible one.
            BudgetError: A number is not finite, or the tolerance is negative.
        """
        solution = solve(self._problem, [_limit(average_bits, tolerance)])
        chosen = cast("Mapping[str, int]", solution.chosen)
        return Allocation(chosen, self.average(chosen), solution.score, solution.gap)

    def average(self, bits: Mapping[str, int]) -> float:
        """The average of the layers' bits, weighted by size; correctly rounded.

        Raises:
            UsageError: The bits are not of the group's layers and candidates.
        """
        if bits.keys() != self.scores.keys():
            raise UsageError("bits: name other layers than the group has; give each layer's")
        spent = (self._cost(name, width) * self._exact_sizes[name] for name, width in bits.items())
        return float(sum(spent, Fraction(0)) / self.size)

    def widest(self) -> dict[str, float]:
        """Every layer's score at the most bits it may take."""
        return {name: by_bits[max(by_bits)] for name, by_bits in self.scores.items()}

    def without(self, names: Collection[str]) -> BitProgram:
        """The group less some layers; the others share an average of their own."""
        scores = {name: each for name, each in self.scores.items() if name not in names}
        return BitProgram(scores, {name: self.sizes[name] for name in scores}, self.bits)

    @cached_property
    def _exact_sizes(self) -> Mapping[str, Fraction]:
        return {
            name: Fraction(exact(self.sizes[name], f"layer {name!r}, size")) for name in self.scores
        }

    @cached_property
    def _problem(self) -> Problem:
        return Problem(
            {
                name: tuple(self._option(name, *each) for each in _by_width(name, by_bits))
                for name, by_bits in self.scores.items()
            }
        )

    def _option(self, name: str, width: int, score: float) -> Option:
        value = float(exact(score, f"layer {name!r}, score at {width} bits"))
        share = self._exact_sizes[name] / self.size
        return Option(width, value, {_RESOURCE: self._cost(name, width) * share})

    def _cost(self, name: str, width: int) -> Fraction:
        if self.bits is None:
            return Fraction(width)
        try:
            cost = self.bits[name][width]
        except KeyError as cause:
            raise UsageError(
                f"layer {name!r}: bits say nothing of its {width}-bit candidate; add it"
            ) from cause
        return Fraction(exact(cost, f"layer {name!r}, bits of its {width}-bit candidate"))


def decimal(value: float, name: str) -> Fraction:
    """The decimal that a number prints as, exactly; raises BudgetError unless it is finite."""
    return Fraction(str(exact(value, name, BudgetError)))


def _limit(average_bits: float, tolerance: float | None) -> Limit:
    average = decimal(average_bits, "average_bits")
    if tolerance is None:
        return Limit(_RESOURCE, average)
    margin = decimal(tolerance, "tolerance")
    if margin < 0:
        raise BudgetError(f"tolerance: is {tolerance}; give a number of bits, zero or more")
    return Limit(_RESOURCE, average + margin, average - margin)


def _by_width(name: str, by_bits: Mapping[int, float]) -> list[tuple[int, float]]:
    try:
        widths = [operator.index(bits) for bits in by_bits]
    except TypeError as cause:
        raise UsageError(f"layer {name!r}: {[*by_bits]} are not all whole bits") from cause
    if any(width < 0 for width in widths):
        raise UsageError(f"layer {name!r}: {widths} are not all bits, zero or more")
    return [*zip(widths, by_bits.values(), strict=True)]
