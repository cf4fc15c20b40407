"""Rounding to nearest that passes gradients, for training what will be packed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mezzotint.formats import AffineGrid, Grid, LookupGrid, MixedGrid
from mezzotint.formats.affine_grid import covered, middle, nearest_codes

_FEW = 8
"""Levels that are looked through one by one for their gradients."""


def fake_quantize(weight: Tensor, grid: Grid) -> Tensor:
    """The weight on its grid: float32 of its shape, the values that would be stored, bit for bit.

    Gradients go straight through the rounding (Bengio et al. 2013). That of the weight is 1 as far
    as half a step beyond the outermost values of its row or group, and 0 where it is clipped
    farther out. Scales and zero points that require gradients receive those of learned step sizes
    (Esser et al. 2020, "Learned step size quantization"): per weight, code - zero_point less the
    weight in steps of its scale, the latter only where it is not clipped. Levels of a table receive
    the sum over the weights that they stand for.

    Args:
        weight: floating [out_channels, …], of the grid's shape.
        grid: from `WeightFormat.grid`, with learned parameters by `Grid.with_parameters`.
    """
    return _rounded(weight.flatten(1).float(), grid).reshape(weight.shape)


def fake_quantize_input(x: Tensor, scale: Tensor, zero_point: Tensor | None, bits: int) -> Tensor:
    """The values of the codes of an input, in its dtype; gradients as those of `fake_quantize`.

    Args:
        x: floating.
        scale: positive float32, to be combined with `x`.
        zero_point: whole float32 from 0 to 2^bits - 1, likewise; None for the middle of the codes.
        bits: 2 to 8.
    """
    rounded: Tensor = _RoundAffine.apply(  # type: ignore[no-untyped-call]
        x, scale, zero_point, bits
    )
    return rounded


def _rounded(matrix: Tensor, grid: Grid) -> Tensor:
    if isinstance(grid, MixedGrid):
        parts = zip(grid.segments, grid.channels, strict=True)
        rows = [_rounded(matrix.index_select(0, channels), one) for one, channels in parts]
        return torch.cat(rows).index_select(0, grid.order)
    if isinstance(grid, AffineGrid):
        blocks, scale, zero_point = grid.blocks(matrix)
        rounded: Tensor = _RoundAffine.apply(  # type: ignore[no-untyped-call]
            blocks, scale, zero_point, grid.bits
        )
        return grid.matrix(rounded, matrix.shape[1])
    codes, covers = grid.nearest(matrix), grid.covers(matrix)
    if isinstance(grid, LookupGrid) and grid.levels.requires_grad and grid.levels.shape[1] <= _FEW:
        found: Tensor = _RoundLookup.apply(  # type: ignore[no-untyped-call]
            matrix, grid.levels, codes, covers
        )
        return found
    return grid.values(codes) + torch.where(covers, matrix - matrix.detach(), 0.0)


class _RoundAffine(torch.autograd.Function):
    """scale · (nearest code - zero_point), in the dtype of the weight or input that is rounded."""

    @staticmethod
    def forward(
        ctx: Any, exact: Tensor, scale: Tensor, zero_point: Tensor | None, bits: int
    ) -> Tensor:
        shift = middle(bits) if zero_point is None else zero_point
        steps = exact / scale
        if zero_point is None and bits == 1:
            codes, inside = nearest_codes(steps, None, 1), covered(steps, shift, 1)
        else:
            unclipped = steps.round_().add_(shift)
            codes = unclipped.clamp(0, 2**bits - 1)
            inside = codes == unclipped
        rounded = codes.sub_(shift).mul_(scale).to(exact.dtype)
        ctx.save_for_backward(exact, rounded, inside, scale)
        return rounded

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        exact, rounded, inside, scale = ctx.saved_tensors
        of_exact = gradient * inside
        of_scale = of_zero = None
        if ctx.needs_input_grad[1]:
            # In this order bfloat16 does: neighbours differ exactly.
            slope = (rounded - exact * inside).mul_(gradient)
            of_scale = slope.sum_to_size(scale.shape) / scale
        if ctx.needs_input_grad[2]:
            of_zero = (of_exact - gradient).sum_to_size(scale.shape) * scale
        return of_exact if ctx.needs_input_grad[0] else None, of_scale, of_zero, None


class _RoundLookup(torch.autograd.Function):
    """The nearest of a few levels of each row; cheaper than gathering and scattering them."""

    @staticmethod
    def forward(ctx: Any, exact: Tensor, levels: Tensor, codes: Tensor, covers: Tensor) -> Tensor:
        ctx.save_for_backward(codes, covers)
        ctx.shape = levels.shape
        return levels.expand(len(codes), -1).gather(1, codes.long())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        codes, covers = ctx.saved_tensors
        of_exact = gradient * covers if ctx.needs_input_grad[0] else None
        of_levels = None
        if ctx.needs_input_grad[1]:
            each = [(gradient * (codes == code)).sum(1) for code in range(ctx.shape[1])]
            of_levels = torch.stack(each, 1).sum_to_size(ctx.shape)
        return of_exact, of_levels, None, None
