"""Rounding that makes up for the error of each column in those that follow.

Frantar et al. 2022, "GPTQ", arXiv 2210.17323, in the form of Chee et al. 2023, "QuIP", arXiv
2307.13304, which needs no inverse: the same codes but for floating-point rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mezzotint.errors import FormatError
from mezzotint.formats import Codes, Grid
from mezzotint.rounding.factor import Factor, factors_of
from mezzotint.rounding.moments import InputMoments
from mezzotint.rounding.roundings import register_rounding

_BLOCK = 128
"""Columns whose errors are passed on among themselves one by one, to all that follow at once."""


@register_rounding("feedback", needs_moments=True)
@torch.no_grad()
def feedback(weight: Tensor, grid: Grid, moments: InputMoments | None) -> Codes:
    """Codes with which the layer's output, rather than its weight, comes nearest.

    Columns are rounded in descending order of their inputs' energy, each to the nearest value
    after the errors of those before it were added in proportion to how their inputs go together.
    Inputs that have nothing to do with each other make it nearest rounding, bit for bit.

    Args:
        weight: floating [out_channels, …].
        grid: of the weight's shape.
        moments: of its inputs, with Gram matrices.

    Raises:
        FormatError: moments are lacking, of another layer, or hold NaN.
    """
    if moments is None:
        raise FormatError(
            "rounding 'feedback' needs the Gram matrices of the layer's inputs: apply the plan to "
            "a pipeline, which gathers them, or choose rounding 'nearest'"
        )
    rows, columns = grid.shape
    moments.check(rows, columns, grams=True)
    matrix = weight.detach().flatten(1).float()
    codes = torch.empty(rows, columns, dtype=torch.uint8, device=matrix.device)
    start = 0
    for groups in factors_of(moments, matrix.device):
        each = rows // len(groups)
        for group, factor in enumerate(groups):
            part = slice(group * each, (group + 1) * each)
            taken = start + factor.order
            of_group = grid if len(groups) == 1 else grid.rows(part)
            codes[part, taken] = _codes(matrix[part, taken].T, of_group, taken, factor).T
        start += len(groups[0].order)
    return codes


def _codes(weight: Tensor, grid: Grid, columns: Tensor, factor: Factor) -> Tensor:
    """Codes uint8 [n, rows] of a transposed weight [n, rows], `columns` of the grid in order."""
    weight = weight.contiguous()
    errors = torch.empty_like(weight)
    codes = torch.empty_like(weight, dtype=torch.uint8)
    upper = factor.upper
    for first in range(0, len(weight), _BLOCK):
        block = slice(first, first + _BLOCK)
        wanted = torch.addmm(weight[block], upper[:first, block].T, errors[:first])
        within, own = upper[block, block], errors[block]
        for j in range(len(wanted)):
            column = columns[first + j : first + j + 1]
            target = torch.addmv(wanted[j], own[:j].T, within[:j, j])
            chosen = grid.nearest(target.unsqueeze(1), column)
            torch.sub(weight[first + j], grid.values(chosen, column)[:, 0], out=own[j])
            codes[first + j] = chosen[:, 0]
    return codes
