"""Rounding to nearest: each weight takes the value of its grid that is least far from it."""

from __future__ import annotations

from torch import Tensor

from mezzotint.formats import Codes, Grid
from mezzotint.rounding.moments import InputMoments
from mezzotint.rounding.roundings import register_rounding


@register_rounding("nearest")
def nearest(weight: Tensor, grid: Grid, moments: InputMoments | None = None) -> Codes:
    """Codes of the nearest values, lazily and a few rows at a time, for `WeightFormat.store`.

    Whatever the weight multiplies.

    Raises:
        FormatError: the weight has another shape than the grid is for.
    """
    return grid.nearest_rows(weight)
