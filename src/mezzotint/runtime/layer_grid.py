"""The grid of a layer's weight as it is packed."""

from __future__ import annotations

from torch import Tensor

from mezzotint.formats import Grid, MixedFormat, RangeSearch, WeightFormat
from mezzotint.rounding import channel_order


def layer_grid(weight_format: WeightFormat, weight: Tensor, search: RangeSearch) -> Grid:
    """The values that the weight of a layer can take, for packing it and for training it.

    In mixed formats the output channels of highest kurtosis take the most bits, as in MPQ-DM. This
    is the only place that orders them.

    Raises:
        FormatError: the weight holds NaN or infinity, or has a shape that the format cannot store.
    """
    if isinstance(weight_format, MixedFormat):
        weight_format.layout(tuple(weight.shape))
        order = channel_order(weight, weight_format.counts)
        return weight_format.grid(weight, search, order)
    return weight_format.grid(weight, search)
