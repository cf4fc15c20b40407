"""Bits per layer under an average, as a plain function of numbers."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from fractions import Fraction
from typing import cast

from mezzotint.allocation.solver import solve
from mezzotint.allocation.values import Limit, Option, Problem, exact
from mezzotint.errors import BudgetError, UsageError

_RESOURCE = "average bits"


def allocate(
    scores: Mapping[str, Mapping[int, float]],
    sizes: Mapping[str, float],
    *,
    average_bits: float,
    tolerance: float | None = None,
) -> Mapping[str, int]:
    """Give every layer the bits that make the total score largest under an average.

    The average is `sum(bits * size) / sum(size)`. It is kept exactly: `average_bits` and
    `tolerance` are taken as the decimals they print as, so that 3.3 admits seven layers at 3 bits
    and three at 4, all of one size.

    Args:
        scores: Layer → bits → score; larger is better, any unit.
        sizes: Layer → number of weights, or any measure proportional to it; ≥ 0.
        average_bits: The average to keep to.
        tolerance: `None` for an average of at most `average_bits`; otherwise the average must lie
            within `average_bits ± tolerance`.

    Returns:
        Layer → bits, in the order of `scores`.

    Raises:
        InfeasibleBudgetError: No choice has such an average; names the nearest that is feasible.
        BudgetError: The average or the tolerance is not finite, or the tolerance is negative.
        UsageError: A layer lacks scores or a size, or has bad ones.
    """
    shares = _shares(scores, sizes)
    layers = {
        name: tuple(
            Option(
                width,
                float(exact(score, f"layer {name!r}, score at {width} bits")),
                {_RESOURCE: width * shares[name]},
            )
            for width, score in zip(_widths(name, by_bits), by_bits.values(), strict=True)
        )
        for name, by_bits in scores.items()
    }
    solution = solve(Problem(layers), [_limit(average_bits, tolerance)])
    return cast("Mapping[str, int]", solution.chosen)


def _limit(average_bits: float, tolerance: float | None) -> Limit:
    average = _decimal(average_bits, "average_bits")
    if tolerance is None:
        return Limit(_RESOURCE, average)
    margin = _decimal(tolerance, "tolerance")
    if margin < 0:
        raise BudgetError(f"tolerance: is {tolerance}; give a number of bits, zero or more")
    return Limit(_RESOURCE, average + margin, average - margin)


def _decimal(value: float, name: str) -> Fraction:
    return Fraction(str(exact(value, name, BudgetError)))


def _shares(
    scores: Mapping[str, Mapping[int, float]], sizes: Mapping[str, float]
) -> dict[str, Fraction]:
    """Each layer's exact share of the total size."""
    for name in scores:
        if name not in sizes:
            raise UsageError(f"layer {name!r}: has scores but no size; add it to sizes")
    for name in sizes:
        if name not in scores:
            raise UsageError(f"layer {name!r}: has a size but no scores; add it to scores")
    exact_sizes = {name: Fraction(exact(sizes[name], f"layer {name!r}, size")) for name in scores}
    for name, size in exact_sizes.items():
        if size < 0:
            raise UsageError(f"layer {name!r}: its size {sizes[name]} is negative")
    total = sum(exact_sizes.values(), Fraction(0))
    if scores and not total:
        raise UsageError("sizes: all are zero; give the layers' numbers of weights")
    return {name: size / total for name, size in exact_sizes.items()}


def _widths(name: str, by_bits: Mapping[int, float]) -> list[int]:
    try:
        widths = [operator.index(bits) for bits in by_bits]
    except TypeError as cause:
        raise UsageError(f"layer {name!r}: {[*by_bits]} are not all whole bits") from cause
    if any(width < 0 for width in widths):
        raise UsageError(f"layer {name!r}: {widths} are not all bits, zero or more")
    return widths
