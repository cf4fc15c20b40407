"""Layers to leave alone: those that suffer most even at many bits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction

from mezzotint.allocation import Allocation, BitProgram, exact
from mezzotint.errors import UsageError


def protected(scores: Mapping[str, float], share: float = 0.01) -> tuple[str, ...]:
    """The layers with the lowest scores: a share of all, rounded up (MixDQ, arXiv 2405.17873).

    MixDQ leaves the inputs of 1% of each group's layers in floating point, by their scores at 8
    bits. What is protected leaves the program: it has no bits to choose.

    Args:
        scores: Layer → score at the widest candidate; larger is better, any unit.
        share: Share of the layers, 0 to 1, taken as the decimal it prints as; 0 protects none.

    Returns:
        The ⌈share · n⌉ layers in the order of their scores, lowest first; ties go by name.

    Raises:
        UsageError: A score is not finite, or the share is out of its domain.
    """
    portion = exact(share, "share")
    if not 0 <= portion <= 1:
        raise UsageError(f"share: is {share}; give a share of the layers, from 0 to 1")
    values = {name: exact(score, f"layer {name!r}, score") for name, score in scores.items()}
    count = math.ceil(Fraction(str(portion)) * len(values))
    return tuple(sorted(values, key=lambda name: (values[name], name))[:count])


def allocate_unprotected(
    program: BitProgram, average: float, tolerance: float | None = None, *, share: float
) -> tuple[Allocation, tuple[str, ...]]:
    """Protect a share of the layers, and choose the bits of the others under an average.

    Args:
        program: All layers.
        average: Of the layers that are not protected, in bits.
        tolerance: As of `BitProgram.allocate`.
        share: As of `protected`, by the scores at each layer's most bits.

    Returns:
        The allocation of the others, and the protected layers, lowest score first.

    Raises:
        UsageError: The share is out of its domain, or leaves no layer.
        InfeasibleBudgetError, BudgetError: As `BitProgram.allocate`.
    """
    left_out = protected(program.widest(), share)
    if len(left_out) == len(program.scores):
        raise UsageError(f"protect: a share of {share:g} leaves no layer; give a smaller one")
    return program.without(left_out).allocate(average, tolerance), left_out
