"""Input ranges that clip: by the share of values within, or for the least rounding error."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from mezzotint.formats import ActivationFormat
from mezzotint.runtime import InputRange

_BINS = 2**14
_PIECE = 2**22
"""Values counted at once: float32 counts them exactly."""

_SHARES = {"p99.9": 0.999, "p99.99": 0.9999}

_RATIOS = tuple(2 ** (-step / 8) for step in range(65))
"""Shares of an end of the full range that are tried, down to 1/256."""

_ROUNDS = 3
"""Ends of a range are chosen in turn, each given the other, so many times at most."""


class InputHistogram:
    """Counts of one layer's input values, within the range of each of its quantizers.

    Args:
        ranges: full ranges, one for each quantizer.
    """

    def __init__(self, ranges: Sequence[InputRange]) -> None:
        self.ranges = tuple(ranges)
        self.counts = [torch.zeros(_BINS, dtype=torch.float64) for _ in ranges]

    def see(self, parts: tuple[Tensor, ...]) -> None:
        """Count the values of one run."""
        for counts, part, full in zip(self.counts, parts, self.ranges, strict=True):
            if full.low < full.high:
                for piece in torch.split(part.detach().flatten().float(), _PIECE):
                    within = piece.clamp(full.low, full.high)
                    counts.add_(torch.histc(within, _BINS, full.low, full.high).cpu())

    def end_call(self) -> None:
        """Do nothing: all calls count alike."""

    def clipped(self, clip: str, activation: ActivationFormat | None) -> tuple[InputRange, ...]:
        """The range of each quantizer under a clip of `Encoding` that is not the full one.

        Args:
            clip: a share of values, or `mse`.
            activation: of the inputs; says at how many codes the error is least.
        """
        return tuple(
            full if not counts.any() else _clipped(full, counts, clip, activation)
            for full, counts in zip(self.ranges, self.counts, strict=True)
        )


def _clipped(
    full: InputRange, counts: Tensor, clip: str, activation: ActivationFormat | None
) -> InputRange:
    if clip in _SHARES:
        edges = torch.linspace(full.low, full.high, _BINS + 1, dtype=torch.float64)
        low, high = _middle(counts, _SHARES[clip])
        return InputRange(float(edges[low]), float(edges[high]))
    return full if activation is None else _least_error(full, counts, activation)


def _middle(counts: Tensor, share: float) -> tuple[int, int]:
    """Edges between which that share of values lies at least, half of the others on each side."""
    outside = (1 - share) / 2 * float(counts.sum())
    below, above = counts.cumsum(0), counts.flip(0).cumsum(0)
    return int((below <= outside).sum()), _BINS - int((above <= outside).sum())


def _least_error(full: InputRange, counts: Tensor, activation: ActivationFormat) -> InputRange:
    """The range of least expected squared error: both ends shrunk alike, then each by itself."""
    expected = _ExpectedError(full, counts, activation)

    def best(candidates: Iterable[InputRange]) -> InputRange:
        return min(candidates, key=expected)

    found = best(InputRange(full.low * ratio, full.high * ratio) for ratio in _RATIOS)
    for _ in range(_ROUNDS):
        before = found
        found = best([found, *(InputRange(found.low, full.high * ratio) for ratio in _RATIOS)])
        found = best([found, *(InputRange(full.low * ratio, found.high) for ratio in _RATIOS)])
        if found == before:
            break
    return found


class _ExpectedError:
    """Squared rounding error of the counted values under a range, summed."""

    def __init__(self, full: InputRange, counts: Tensor, activation: ActivationFormat) -> None:
        edges = torch.linspace(full.low, full.high, _BINS + 1, dtype=torch.float64)
        seen = counts > 0
        self.values = ((edges[:-1] + edges[1:]) / 2)[seen].float()
        self.counts = counts[seen]
        self.width = (full.high - full.low) / _BINS
        self.activation = activation

    def __call__(self, bounds: InputRange) -> float:
        if bounds.low > bounds.high:
            return math.inf
        scale, zero_point = self.activation.range_parameters(
            bounds.low, bounds.high, self.values.device
        )
        errors = self.activation.roundtrip(self.values, scale, zero_point).sub_(self.values)
        squared = errors.double().square()
        step = float(scale)
        if step < 2 * self.width:
            # Values within a bin are rounded to several codes: uniform noise, but for the clipped.
            squared = torch.where(squared <= step**2 / 4, step**2 / 12, squared)
        return float((self.counts * squared).sum())
