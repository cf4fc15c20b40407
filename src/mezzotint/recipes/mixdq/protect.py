"""Which layers to leave alone: those that suffer most even at many bits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction

from mezzotint.allocation import exact
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
