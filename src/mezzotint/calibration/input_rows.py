"""Inputs of a layer as rows of a matrix, which its weight's columns multiply; some of many."""

from __future__ import annotations

import torch
from torch import Tensor

from mezzotint.plan import LayerShape
from mezzotint.runtime import Conv2d, Operation

_GOLDEN = 0.6180339887498949
_PLASTIC = 0.7548776662466927
"""Steps of additive recurrences, whose fractional parts fill 0 to 1 evenly."""


def input_rows(x: Tensor, operation: Operation, layer: LayerShape, most: int, run: int) -> Tensor:
    """Rows that a layer multiplies with its weight: float32 [groups, n, k], n at most `most`.

    Args:
        x: [..., k] of a Linear; [n, c, h, w] or [c, h, w] of a Conv2d, whose rows are unfolded
            windows [c / groups · height · width], padding included.
        operation: of the layer.
        layer: shape of its weight.
        most: rows that are taken, spread evenly over all of them.
        run: number of the run, so that several take different positions.
    """
    if not isinstance(operation, Conv2d):
        rows = x.reshape(-1, layer.weight[1])
        return rows[_spread(len(rows), most, run, x.device)].float().unsqueeze(0)
    windows = _windows(x, operation)
    samples, _, high, wide = windows.shape[:4]
    places = _spread(samples * high * wide, most, run, x.device)
    sample, place = places // (high * wide), places % (high * wide)
    taken = windows[sample, :, place // wide, place % wide].float()
    return taken.reshape(len(places), layer.groups, -1).transpose(0, 1)


def _windows(x: Tensor, operation: Conv2d) -> Tensor:
    """Every window as a view of the padded input: [n, c, h', w', height, width]."""
    geometry = operation.geometry
    padded = geometry.padded(x if x.ndim == 4 else x.unsqueeze(0))
    (high, wide), (down, right) = geometry.extent, geometry.stride
    every = padded.unfold(2, high, down).unfold(3, wide, right)
    return every[..., :: geometry.dilation[0], :: geometry.dilation[1]]


def _spread(total: int, most: int, run: int, device: torch.device) -> Tensor:
    """Ascending int64 numbers below `total`, one from each of `most` equal stretches.

    Places within the stretches vary, so that no regular pattern of positions is favoured.
    """
    if total <= most:
        return torch.arange(total, device=device)
    numbers = torch.arange(most, dtype=torch.float64)
    within = (numbers * _GOLDEN + run * _PLASTIC) % 1.0
    return ((numbers + within) * total / most).long().clamp_(max=total - 1).to(device)
