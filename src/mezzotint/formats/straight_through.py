"""The straight-through estimator: rounded values whose gradient is that of the exact ones."""

from __future__ import annotations

from torch import Tensor


def straight_through(rounded: Tensor, exact: Tensor) -> Tensor:
    """The values of `rounded`, bit for bit, with the gradient of `exact` (Bengio et al. 2013)."""
    return rounded.detach() + (exact - exact.detach())
