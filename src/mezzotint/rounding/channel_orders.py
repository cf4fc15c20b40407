"""Names of orders in which mixed formats store output channels, as they stand in plans."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mezzotint.errors import FormatError
from mezzotint.formats import ChannelOrder
from mezzotint.rounding.kurtosis import channel_order


def as_stored(weight: Tensor, counts: Sequence[int]) -> Tensor:
    """Every output channel stays where it is: int64 [out_channels]."""
    return torch.arange(len(weight), device=weight.device)


_ORDERS: dict[str, ChannelOrder] = {"kurtosis": channel_order, "stored": as_stored}


def order_named(name: str) -> ChannelOrder:
    """The order called `name`.

    Raises:
        FormatError: there is none.
    """
    if name not in _ORDERS:
        known = " or ".join(map(repr, _ORDERS))
        raise FormatError(f"unknown order of channels {name!r}; expected {known}")
    return _ORDERS[name]
