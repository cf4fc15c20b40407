"""The grid of a layer's weight as it is packed."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mezzotint.formats import ChannelOrder, Grid, WeightFormat
from mezzotint.plan import Encoding
from mezzotint.rounding import order_named


def layer_grid(
    weight_format: WeightFormat, weight: Tensor, encoding: Encoding, order: Tensor | None = None
) -> Grid:
    """The values that the weight of a layer can take, for packing it and for training it.

    Args:
        weight_format: of the weight.
        weight: floating.
        encoding: gives the range search, and the order of a mixed format's channels.
        order: integer [out_channels], another order than that, see `MixedFormat.grid`.

    Raises:
        FormatError: the weight holds NaN or infinity, or has a shape that the format cannot store;
            or the order is no permutation.
    """
    chosen = order_named(encoding.order) if order is None else _given(order)
    return weight_format.ordered_grid(weight, encoding.search, chosen)


def _given(order: Tensor) -> ChannelOrder:
    """The same order whatever the weight is."""

    def keep(weight: Tensor, counts: Sequence[int]) -> Tensor:
        return order

    return keep
