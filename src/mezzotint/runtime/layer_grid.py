"""The grid of a layer's weight as it is packed."""

from __future__ import annotations

from torch import Tensor

from mezzotint.formats import Grid, WeightFormat
from mezzotint.plan import Encoding
from mezzotint.rounding import order_named


def layer_grid(weight_format: WeightFormat, weight: Tensor, encoding: Encoding) -> Grid:
    """The values that the weight of a layer can take, for packing it and for training it.

    Raises:
        FormatError: the weight holds NaN or infinity, or has a shape that the format cannot store.
    """
    return weight_format.ordered_grid(weight, encoding.search, order_named(encoding.order))
