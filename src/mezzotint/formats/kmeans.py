"""K-means in one dimension, many rows at once, on sorted values: Lloyd's algorithm, or all cuts."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

#: Lloyd's steps; rows of a thousand weights settle within 20 to 60.
STEPS = 100

#: Points per level at which the density of a row is looked at.
POINTS = 8


def kmeans(rows: Tensor, count: int) -> Tensor:
    """`count` levels per row that make Σ (w - nearest level)² small, deterministically.

    Two levels are the best that there are. Rows with no more distinct values than levels keep each
    of them, the highest repeated. Takes about 24 bytes per value while it runs: in sorted order a
    step needs prefix sums and the borders of clusters only, and no distances.

    Args:
        rows: finite, float32 [rows, n].
        count: levels per row.

    Returns:
        float64 [rows, count], ascending.
    """
    ordered = _sorted(rows)
    first = pad(ordered[:, 1:] != ordered[:, :-1], (1, 0), value=True)
    few = first.sum(1) <= count
    if bool(few.all()):
        return _distinct(ordered, first, count)
    levels = _best_pair(ordered) if count == 2 else _lloyd(ordered, _start(ordered, count))
    levels[few] = _distinct(ordered[few], first[few], count)
    return levels


def borders(levels: Tensor) -> Tensor:
    """Borders between the values of neighbouring levels, float32 [rows, count - 1].

    A value belongs to the level whose index is the number of borders below it.
    """
    levels = levels.double()
    return levels[:, 1:].add(levels[:, :-1]).div_(2).float()


def _sorted(rows: Tensor) -> Tensor:
    """Each row ascending; zeros are positive.

    On the CPU NumPy sorts many times as fast as torch.
    """
    positive = rows + 0.0
    if rows.device.type != "cpu":
        return positive.sort(1).values
    positive.numpy().sort(axis=1)
    return positive


def _distinct(ordered: Tensor, first: Tensor, count: int) -> Tensor:
    """The distinct values of rows that have at most `count` of them."""
    rank = first.cumsum(1)
    wanted = torch.arange(1, count + 1, device=rank.device).expand(len(rank), -1)
    index = torch.searchsorted(rank, torch.minimum(wanted, rank[:, -1:]))
    return ordered.gather(1, index).double()


def _best_pair(ordered: Tensor) -> Tensor:
    """The two levels of least error: the means of the halves that the best of all cuts makes."""
    rows, n = ordered.shape
    if n == 1:
        return ordered.double().expand(rows, 2).clone()
    center = ordered.mean(1, keepdim=True, dtype=torch.float64)
    total = (ordered - center).cumsum_(1)
    below = torch.arange(1, n, dtype=torch.float64, device=ordered.device)
    # The deviations from the mean sum to 0: both halves have the same sum but for the sign.
    gain = total[:, :-1].square() / (below * (n - below))
    cut = gain.argmax(1, keepdim=True)
    low, size = total.gather(1, cut), cut + 1.0
    means = torch.cat([center + low / size, center - low / (n - size)], 1)
    # Beside huge values sums lose small ones altogether.
    least = ordered.gather(1, torch.cat([torch.zeros_like(cut), cut + 1], 1)).double()
    most = ordered.gather(1, torch.cat([cut, torch.full_like(cut, n - 1)], 1)).double()
    return means.maximum(least).minimum(most)


def _start(ordered: Tensor, count: int) -> Tensor:
    """Quantiles of the cube root of the density, which the best levels follow.

    Panter and Dite 1951. Lloyd's steps only find the nearest of many optima, and from quantiles of
    the density itself they leave the tails short of levels.
    """
    n = ordered.shape[1]
    spots = torch.linspace(0, n - 1, min(n, POINTS * count), dtype=torch.float64)
    points = ordered[:, spots.round().long().to(ordered.device)].double()
    # A gap of width d between neighbouring points has density 1/d, to the cube root d^(-1/3).
    weight = pad((points[:, 1:] - points[:, :-1]).pow_(2 / 3).cumsum(1), (1, 0))
    share = torch.arange(0.5, count, dtype=torch.float64, device=ordered.device) / count
    wanted = weight[:, -1:] * share
    right = torch.searchsorted(weight, wanted).clamp_(1, points.shape[1] - 1)
    low, high = weight.gather(1, right - 1), weight.gather(1, right)
    tiny = torch.finfo(torch.float64).tiny
    ratio = ((wanted - low) / (high - low).clamp(min=tiny)).clamp_(0, 1)
    return torch.lerp(points.gather(1, right - 1), points.gather(1, right), ratio)


def _lloyd(ordered: Tensor, levels: Tensor) -> Tensor:
    prefix = pad(ordered.cumsum(1, dtype=torch.float64), (1, 0))
    found, rows = levels.clone(), torch.arange(len(levels), device=levels.device)
    for _ in range(STEPS):
        moved = _step(ordered, prefix, levels)
        found[rows] = moved
        moving = (moved != levels).any(1)
        count = int(moving.sum())
        if not count:
            break
        levels = moved
        if 2 * count <= len(rows):
            # The others have settled: a step more would leave them as they are.
            rows, ordered, prefix, levels = (
                each[moving] for each in (rows, ordered, prefix, levels)
            )
    return found


def _step(ordered: Tensor, prefix: Tensor, levels: Tensor) -> Tensor:
    """Each level moves to the mean of its values; one without values, to where it helps."""
    n = ordered.shape[1]
    ends = torch.searchsorted(ordered, borders(levels), right=True)
    edges = pad(pad(ends, (1, 0)), (0, 1), value=n)
    sizes, sums = edges.diff(dim=1), prefix.gather(1, edges).diff(dim=1)
    low = ordered.gather(1, edges[:, :-1].clamp(max=n - 1)).double()
    high = ordered.gather(1, (edges[:, 1:] - 1).clamp(min=0)).double()
    # Beside huge values the differences of prefix sums lose small ones altogether.
    means = (sums / sizes.clamp(min=1)).maximum(low).minimum(high)
    used = sizes > 0
    if bool(used.all()):
        return means
    return _reseeded(torch.where(used, means, levels), used, sizes, low, high)


def _reseeded(means: Tensor, used: Tensor, sizes: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Levels without values go to the far ends of the widest and fullest clusters.

    More levels bring no value farther from its nearest, so this never does harm.
    """
    below, above = means - low, high - means
    spread = torch.where(used, sizes * torch.maximum(below, above).square(), 0.0)
    widest = spread.argsort(dim=1, descending=True, stable=True)
    target = widest.gather(1, (~used).cumsum(1).sub_(1).clamp_(min=0))
    helps = ~used & (spread.gather(1, target) > 0)
    far = torch.where(below > above, low, high).gather(1, target)
    return torch.where(helps, far, means).sort(1).values
