"""Rounding to nearest that passes gradients, for training what will be packed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mezzotint.formats import AffineGrid, Grid, MixedGrid
from mezzotint.formats.affine_grid import covered, middle, nearest_codes


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
    return rounded.to(x.dtype)


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
    exact = torch.where(grid.covers(matrix), matrix - matrix.detach(), 0.0)
    return grid.values(grid.nearest(matrix)) + exact


class _RoundAffine(torch.autograd.Function):
    """scale · (nearest code - zero_point); the backward pass counts steps again to save memory."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, scale: Tensor, zero_point: Tensor | None, bits: int
    ) -> Tensor:
        ctx.save_for_backward(weight, scale, zero_point)
        ctx.bits = bits
        shift = middle(bits) if zero_point is None else zero_point
        return nearest_codes(weight / scale, zero_point, bits).sub_(shift).mul_(scale)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        weight, scale, zero_point = ctx.saved_tensors
        shift = middle(ctx.bits) if zero_point is None else zero_point
        steps = weight / scale
        inside = covered(steps, shift, ctx.bits)
        of_weight = of_scale = of_zero = None
        if ctx.needs_input_grad[0]:
            of_weight = (gradient * inside).to(weight.dtype)
        if ctx.needs_input_grad[1]:
            codes = nearest_codes(steps, zero_point, ctx.bits).sub_(shift)
            slope = torch.where(inside, codes - steps, codes)
            of_scale = (gradient * slope).sum_to_size(scale.shape)
        if ctx.needs_input_grad[2]:
            of_zero = torch.where(inside, 0.0, -gradient * scale).sum_to_size(scale.shape)
        return of_weight, of_scale, of_zero, None
