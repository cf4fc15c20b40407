"""Errors of candidate scales and zero points: Σ|w - ŵ|^p of every block of a weight."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad

from mezzotint.formats.affine_grid import in_groups, middle, nearest_codes
from mezzotint.formats.compiled import ClipCandidates, compiled_for

#: Sums that run side by side; clip_search.c has the same.
LANES = 256


def summed_errors(matrix: Tensor, candidates: ClipCandidates, power: float) -> Tensor:
    """Σ|w - ŵ|^power of each block, in steps of its scale, where no power overflows or vanishes.

    Args:
        matrix: finite, float32 [rows, columns].
        candidates: scales and zero points.
        power: positive.

    Returns:
        float64 [candidates, blocks].
    """
    matrix = matrix.contiguous()
    if power == 2:
        return squared_errors(matrix, candidates)
    return torch.stack(
        [
            error.abs_().pow_(power).sum(-1, dtype=torch.float64).flatten()
            for error in _errors(matrix, candidates)
        ]
    )


def squared_errors(matrix: Tensor, candidates: ClipCandidates) -> Tensor:
    """`summed_errors` by the power of 2, in an order of their own: see `lane_sums`."""
    compiled = compiled_for(matrix, candidates.scale)
    if compiled is not None:
        return compiled.clip_errors(matrix, candidates)
    found = [lane_sums(error.square_()).flatten() for error in _errors(matrix, candidates)]
    return torch.stack(found)


def lane_sums(values: Tensor) -> Tensor:
    """Sums over the last dimension, float64, in an order that compiled code has as well.

    Lane i adds the values i, i + 256, i + 512, …; then the lanes are halved until one is left.
    Elsewhere than on the CPU sums are in the order of the device.

    Args:
        values: float32 [..., n].
    """
    if values.device.type != "cpu":
        return values.sum(-1, dtype=torch.float64)
    count = values.shape[-1]
    lanes = min(LANES, 1 << (count - 1).bit_length())
    padded = pad(values, (0, -count % lanes))
    lines = padded.view(*values.shape[:-1], -1, lanes).double().unbind(-2)
    total = lines[0].clone()
    for line in lines[1:]:
        total += line
    while lanes > 1:
        lanes //= 2
        total = total[..., :lanes] + total[..., lanes:]
    return total.squeeze(-1)


def _errors(matrix: Tensor, candidates: ClipCandidates) -> Iterator[Tensor]:
    """The distances of all weights from their nearest codes, float32 [rows, groups, size].

    Candidate after candidate, in steps of the scale; those of padding are 0.
    """
    size, bits = candidates.group_size, candidates.bits
    blocks = in_groups(matrix, size)
    ragged = matrix.shape[1] % size != 0
    present = in_groups(matrix.new_ones(1, matrix.shape[1]), size) if ragged else None
    each = (-1, blocks.shape[1], 1) if candidates.scale.shape[1] > 1 else (1, 1, 1)
    for index, scale in enumerate(candidates.scale):
        steps = blocks / scale.view(each)
        if candidates.zero_point is None:
            error = nearest_codes(steps, None, bits).sub_(middle(bits)).sub_(steps)
        else:
            zero_point = candidates.zero_point[index].view(each)
            error = nearest_codes(steps, zero_point, bits).sub_(zero_point).sub_(steps)
        yield error if present is None else error.mul_(present)
