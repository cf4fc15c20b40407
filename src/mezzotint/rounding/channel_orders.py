"""Names of orders in which mixed formats store output channels, as they stand in plans."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mezzotint.errors import FormatError
from mezzotint.formats import ChannelOrder
from mezzotint.rounding.kurtosis import kurtosis

#: Output channels from the one that is to have the fewest bits to the one that is to have the
#: most: int64 [out_channels].
Ranking = Callable[[Tensor], Tensor]


def by_kurtosis(weight: Tensor) -> Tensor:
    """Channels with the worst outliers have the most bits (MPQ-DM); equal ones as they come."""
    return kurtosis(weight).argsort(stable=True)


def by_range(weight: Tensor) -> Tensor:
    """Channels whose weights reach farthest have the most bits; equal ones as they come.

    Given its width, the error of a channel grows with its range, whatever its kurtosis.
    """
    matrix = weight.detach().flatten(1).double()
    reach = matrix.amax(1).clamp(min=0) - matrix.amin(1).clamp(max=0)
    return reach.argsort(stable=True)


def as_stored(weight: Tensor) -> Tensor:
    """The last channels have the most bits."""
    return torch.arange(len(weight), device=weight.device)


def head_first(weight: Tensor) -> Tensor:
    """The first channels have the most bits, the last ones the fewest."""
    return as_stored(weight).flip(0)


def at_random(weight: Tensor) -> Tensor:
    """Any channels, the same ones of all weights of as many."""
    generator = torch.Generator().manual_seed(len(weight))
    return torch.randperm(len(weight), generator=generator).to(weight.device)


_RANKINGS: dict[str, Ranking] = {
    "kurtosis": by_kurtosis,
    "range": by_range,
    "stored": as_stored,
    "head-tail": head_first,
    "random": at_random,
}


def ranking_named(name: str) -> Ranking:
    """The ranking by which the order called `name` assigns channels to segments.

    Raises:
        FormatError: there is none.
    """
    if name not in _RANKINGS:
        known = ", ".join(map(repr, _RANKINGS))
        raise FormatError(f"unknown order of channels {name!r}; expected one of {known}")
    return _RANKINGS[name]


def order_named(name: str) -> ChannelOrder:
    """The order called `name`: its ranking cut into segments.

    Raises:
        FormatError: there is none.
    """
    ranking = ranking_named(name)

    def order(weight: Tensor, counts: Sequence[int]) -> Tensor:
        return in_segments(ranking(weight), counts)

    return order


def channel_order(weight: Tensor, counts: Sequence[int]) -> Tensor:
    """The order called `kurtosis`.

    Kurtosis rises from segment to segment: the last one, of the most bits, has the channels with
    the worst outliers. Equal ones, and channels within a segment, keep their order.

    Returns:
        int64 [out_channels]: a permutation.

    Raises:
        FormatError: the counts do not sum to the output channels, or the weight holds NaN.
    """
    return in_segments(by_kurtosis(weight), counts)


def in_segments(ranked: Tensor, counts: Sequence[int]) -> Tensor:
    """The place of each output channel among rows stored in segments of `counts` rows.

    Args:
        ranked: the channels from the fewest bits to the most, see `Ranking`.
        counts: rows of each segment.

    Returns:
        int64 [out_channels]: a permutation; channels within a segment keep their order.

    Raises:
        FormatError: the counts do not sum to the output channels.
    """
    if sum(counts) != len(ranked):
        raise FormatError(
            f"counts sum to {sum(counts)}, but the weight has {len(ranked)} output channels"
        )
    stored = torch.cat([segment.sort().values for segment in torch.split(ranked, list(counts))])
    return stored.argsort()
