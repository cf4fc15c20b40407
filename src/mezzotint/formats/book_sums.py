"""Counts and sums of weights by bins of half a step, which decide a book of integer levels.

A weight lies in a bin of its row's scale: from -127.5 steps on, the bins at the ends hold all that
lies beyond. A few rows are counted at a time, so that histograms of all of them are never held.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from mezzotint.formats.chunks import PIECE, row_chunks
from mezzotint.formats.clip_errors import lane_sums
from mezzotint.formats.compiled import compiled_for

#: The largest magnitude of a level.
PEAK = 127

#: The number of whole levels that there are.
LEVELS = 2 * PEAK + 1

#: Bins of half a level: the borders between any two levels are borders of bins.
BINS = 2 * LEVELS

#: Rows of which totals are added one after another.
PART = 64


def bin_totals(
    matrix: Tensor, scale: Tensor, of_counts: Tensor, of_sums: Tensor
) -> tuple[Tensor, Tensor]:
    """Counts of weights in each bin, and their sum, over all rows: float64 [bins] each.

    Args:
        matrix: finite, [rows, n].
        scale: positive, float64 [rows].
        of_counts: how much the numbers of a row count, float64 [rows].
        of_sums: how much the sums of a row count, float64 [rows].
    """
    found = [
        _totals_of_parts(part, scale[rows].float(), of_counts[rows], of_sums[rows])
        for rows, part in _pieces(matrix)
    ]
    counts, sums = (torch.cat(each).sum(0) for each in zip(*found, strict=True))
    return counts, sums


def level_products(matrix: Tensor, scale: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
    """Σ w · level and Σ level² of each row, float64 [rows].

    Args:
        matrix: finite, [rows, n].
        scale: positive, float64 [rows].
        levels: of the weights in each bin, float64 [bins].
    """
    found = [_products_of(part, scale[rows].float(), levels) for rows, part in _pieces(matrix)]
    products, squares = (torch.cat(each) for each in zip(*found, strict=True))
    return products, squares


def level_steps(counts: Tensor, sums: Tensor) -> Tensor:
    """Costs of any two levels that follow each other in a book.

    Such a cost is Σ (u - level)² less Σ u² of the weights between them, each at the nearer one.

    Args:
        counts: of the weights below each border of bins, float64 [bins + 1].
        sums: of those weights, likewise.

    Returns:
        float64 [to, from]; infinite unless the level rises.
    """
    compiled = compiled_for(counts, sums)
    if compiled is not None:
        return compiled.level_steps(counts, sums)
    below = torch.stack([counts, sums])
    levels = torch.arange(-PEAK, PEAK + 1, dtype=torch.float64)
    # The border in the middle of each level's own bins, and the one between any two.
    at, between = below[:, 1::2], below[:, 1:-1].unfold(1, LEVELS, 1)
    lower, upper = levels.unsqueeze(0), levels.unsqueeze(1)
    step = error_less_energy(lower, between - at.unsqueeze(1))
    step = step.add_(error_less_energy(upper, at.unsqueeze(2) - between))
    return step.masked_fill_(lower >= upper, math.inf)


def error_less_energy(level: Tensor, below: Tensor) -> Tensor:
    """Σ (u - level)² less Σ u², which every book has; `below`: count and sum of the weights u."""
    count, total = torch.unbind(below)
    return level * (level * count - 2 * total)


def _pieces(matrix: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Whole parts of rows that stay in the cache, float32 on the CPU."""
    rows, columns = matrix.shape
    size = max(1, PIECE // (PART * columns)) * PART * columns
    for some in row_chunks(rows, columns, size):
        yield some, matrix[some].float().cpu().contiguous()


def _totals_of_parts(
    matrix: Tensor, scale: Tensor, of_counts: Tensor, of_sums: Tensor
) -> tuple[Tensor, Tensor]:
    """Totals of `PART` rows each, float64 [parts, bins]."""
    compiled = compiled_for(matrix)
    if compiled is not None:
        return compiled.bin_totals(matrix, scale, of_counts, of_sums)
    parts = -(-len(matrix) // PART)
    counts, sums = torch.zeros(2, parts, BINS, dtype=torch.float64, device="cpu").unbind()
    for index in range(parts):
        rows = slice(index * PART, (index + 1) * PART)
        number, total = _histograms(matrix[rows], scale[rows])
        number *= of_counts[rows].unsqueeze(1)
        total *= of_sums[rows].unsqueeze(1)
        for each in number:
            counts[index] += each
        for each in total:
            sums[index] += each
    return counts, sums


def _products_of(matrix: Tensor, scale: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
    compiled = compiled_for(matrix)
    if compiled is not None:
        return compiled.level_products(matrix, scale, levels)
    counts, sums = _histograms(matrix, scale)
    return lane_sums(sums.mul_(levels)), lane_sums(counts.mul_(levels.square()))


def _histograms(matrix: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """The number of a row's weights in each bin, and their sum: float64 [rows, bins]."""
    steps = (matrix / scale.unsqueeze(1)).mul_(2).floor_()
    index = steps.clamp_(-BINS // 2, BINS // 2 - 1).to(torch.int64)
    index += torch.arange(len(matrix)).mul_(BINS).add_(BINS // 2).unsqueeze(1)
    flat, size = index.view(-1), len(matrix) * BINS
    counts = flat.bincount(minlength=size).double().view(-1, BINS)
    return counts, flat.bincount(matrix.reshape(-1).double(), size).view(-1, BINS)
