"""One book of integer levels for the rows of a weight, and a scale for each: w ≈ scale · level."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from mezzotint.formats.book_sums import (
    BINS,
    PEAK,
    bin_totals,
    error_less_energy,
    level_products,
    level_steps,
)
from mezzotint.formats.cheapest_path import PathCosts, cheapest_path
from mezzotint.formats.chunks import PIECE, row_chunks

#: Alternations of the best book for the scales with the best scales for the book.
ROUNDS = 3

#: Bounds of a scale: numbers of bfloat16 of which a hundred and twenty-seven are finite.
_LEAST, _MOST = torch.finfo(torch.bfloat16).tiny, torch.finfo(torch.bfloat16).max / 128


@dataclass(frozen=True, eq=False)
class IntegerBook:
    """Levels and scales of a weight.

    Attributes:
        levels: whole numbers from -127 to 127, float32 [1, count], ascending.
        scale: float32 [rows, 1], positive values that bfloat16 holds exactly.
    """

    levels: Tensor
    scale: Tensor


def fitted(matrix: Tensor, count: int) -> IntegerBook:
    """A book of `count` levels, and scales, that make Σ (w - ŵ)² small, deterministically.

    The squared error of a row counts by its scale squared, so that it is the weight's own. Given
    scales, the book is the best of all; given the book and which level each weight has, so are the
    scales. They alternate from rows of equal peaks, which suits many levels, and from rows of equal
    spread, which suits few; the better end is taken. Only counts and sums of the weights in each
    bin of each row are looked at, on the CPU, where sums have an order.

    A weight on a uniform grid of so many levels, of scales that bfloat16 holds, is kept exactly.

    Args:
        matrix: finite, [rows, n].
        count: levels, 2 to 64, a power of two.
    """
    exact = _on_uniform_grid(matrix, count)
    if exact is not None:
        return exact
    ends = [_alternated(matrix, count, start) for start in _starts(matrix)]
    return min(ends, key=lambda end: end[0])[1]


def _alternated(matrix: Tensor, count: int, scale: Tensor) -> tuple[float, IntegerBook]:
    """The book found from a first scale, and its Σ (w - ŵ)² less Σ w²."""
    for _ in range(ROUNDS):
        levels = _best_levels(matrix, scale, count)
        product, square = level_products(matrix, scale, _level_of_bin(levels))
        best = _best_scale(product, square, scale)
        # The next book may go to the ends of its range: finer steps.
        scale = best * (float(levels.abs().max()) / PEAK)
    stored = best.to(torch.bfloat16).float()
    error = (stored.double() * (stored.double() * square - 2 * product)).sum()
    return float(error), IntegerBook(levels.float().unsqueeze(0), stored.unsqueeze(1))


def _pieces(matrix: Tensor) -> Iterator[slice]:
    """Rows that are looked at together."""
    return row_chunks(len(matrix), matrix.shape[1], PIECE)


def _on_uniform_grid(matrix: Tensor, count: int) -> IntegerBook | None:
    """The steps of a weight whose rows are whole multiples of one each; None for other weights."""
    half = count // 2
    # Symmetric codes of one bit are ±1, and have no zero.
    levels = [-1, 1] if count == 2 else list(range(-half, half))
    found = []
    for rows in _pieces(matrix):
        steps = _whole_steps(matrix[rows].float(), half, zero=count > 2)
        if steps is None:
            return None
        found.append(steps)
    return IntegerBook(torch.tensor([levels], dtype=torch.float32), torch.cat(found).unsqueeze(1))


def _whole_steps(rows: Tensor, half: int, *, zero: bool) -> Tensor | None:
    """Bfloat16 numbers of which rows hold multiples from -half to half - 1, float32 [rows]."""
    peaks = rows.abs().amax(1)
    steps = peaks.new_zeros(len(rows))
    for multiple in range(half, 0, -1):
        candidate = (peaks / multiple).clamp(min=_LEAST)
        left = (steps == 0) & (candidate == candidate.to(torch.bfloat16))
        if not bool(left.any()):
            continue
        counted = rows[left] / candidate[left].unsqueeze(1)
        fits = (counted == counted.round()) & (counted >= -half)
        fits &= (counted < half) if zero else (counted.abs() == 1)
        steps[left] = torch.where(fits.all(1), candidate[left], steps[left])
    return steps if bool((steps > 0).all()) else None


def _starts(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Scales that give all rows the same peak, or the same spread, float64 [rows]."""
    peaks, spreads = torch.empty(2, len(matrix), dtype=torch.float64).unbind()
    for rows in _pieces(matrix):
        part = matrix[rows].double().contiguous()
        peaks[rows] = part.abs().amax(1)
        spreads[rows] = part.square().mean(1).sqrt()
    farthest = (peaks / spreads.clamp(min=_LEAST)).max()
    equal = spreads * (farthest / PEAK)
    return (peaks / PEAK).clamp(_LEAST, _MOST), equal.clamp(_LEAST, _MOST)


def _best_levels(matrix: Tensor, scale: Tensor, count: int) -> Tensor:
    """The levels of least Σ (w - scale · level)², float64 [count]: by a dynamic program."""
    weight = scale / scale.max()
    number, total = bin_totals(matrix, scale, weight.square(), weight / scale.max())
    # Both up to each border between bins; borders are half a step apart, from -127.5 on.
    below = pad(torch.stack([number, total]).cumsum(1), (1, 0))
    at = below[:, 1::2]
    levels = torch.arange(-PEAK, PEAK + 1, dtype=torch.float64)
    costs = PathCosts(
        first=error_less_energy(levels, at - below[:, :1]),
        step=level_steps(*below),
        last=error_less_energy(levels, below[:, -1:] - at),
    )
    return levels[cheapest_path(costs, count)]


def _level_of_bin(levels: Tensor) -> Tensor:
    """The nearest level of the values in each bin, float64 [bins]."""
    centers = (torch.arange(BINS, dtype=torch.float64) - (BINS - 1) / 2) / 2
    return levels[torch.bucketize(centers, (levels[1:] + levels[:-1]) / 2)]


def _best_scale(product: Tensor, square: Tensor, scale: Tensor) -> Tensor:
    """Least squares, from Σ w · level and Σ level² of each row; the old scale where none is."""
    best = product / square.clamp(min=1)
    return torch.where((square > 0) & (best > 0), best, scale).clamp(_LEAST, _MOST)
