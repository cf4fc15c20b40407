"""Bits per layer under an average, as a plain function of numbers."""

from __future__ import annotations

from collections.abc import Mapping

from mezzotint.allocation.bit_program import BitProgram


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
    return BitProgram(scores, sizes).allocate(average_bits, tolerance).bits
