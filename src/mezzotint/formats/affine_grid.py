"""Evenly spaced values: w = scale · (code - zero_point)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import pad
from typing_extensions import override

from mezzotint.formats.grid import (
    Columns,
    Grid,
    checked_parameters,
    column_indices,
    row_count,
    row_part,
)
from mezzotint.formats.straight_through import straight_through


@dataclass(frozen=True)
class AffineGrid(Grid):
    """Codes 0 to 2^bits - 1, one scale and zero point per tensor, row, or group of columns.

    Attributes:
        bits: 1 to 8.
        scale: float32 [rows or 1, groups], values that `scale_dtype` holds exactly.
        zero_point: whole float32 [rows or 1, groups], each one of the codes; None for the middle of
            the codes, `middle(bits)`.
        size: rows and columns.
        group_size: columns that share a scale, the last ones of a row excepted; all for one group.
        scale_dtype: of the scale as stored.
    """

    bits: int
    scale: Tensor
    zero_point: Tensor | None
    size: tuple[int, int]
    group_size: int
    scale_dtype: torch.dtype = torch.float32

    @property
    @override
    def shape(self) -> tuple[int, int]:
        return self.size

    @property
    @override
    def parameters(self) -> Mapping[str, Tensor]:
        shifted = {} if self.zero_point is None else {"zero_point": self.zero_point}
        return {"scale": self.scale} | shifted

    @override
    def with_parameters(self, parameters: Mapping[str, Tensor]) -> Self:
        known = checked_parameters(self, parameters)
        info = torch.finfo(self.scale_dtype)
        stored = known["scale"].detach().clamp(info.tiny, info.max).to(self.scale_dtype).float()
        changed = replace(self, scale=straight_through(stored, known["scale"]))
        if "zero_point" in known:
            whole = known["zero_point"].detach().round().clamp(0, 2**self.bits - 1)
            changed = replace(changed, zero_point=straight_through(whole, known["zero_point"]))
        return changed

    @override
    def nearest(self, values: Tensor, columns: Columns = None) -> Tensor:
        blocks, scale, zero_point = self.blocks(values.detach().float(), columns)
        shift = None if zero_point is None else zero_point.detach()
        codes = nearest_codes(blocks / scale.detach(), shift, self.bits).to(torch.uint8)
        return self.matrix(codes, values.shape[1])

    @override
    def values(self, codes: Tensor, columns: Columns = None) -> Tensor:
        blocks, scale, zero_point = self.blocks(codes, columns)
        shift = middle(self.bits) if zero_point is None else zero_point
        worth = blocks.float()
        if any(parameter.requires_grad for parameter in self.parameters.values()):
            worth = (worth - shift) * scale
        else:
            # In place, out of reach of gradients.
            worth = worth.sub_(shift).mul_(scale)
        return self.matrix(worth, codes.shape[1])

    @override
    def covers(self, values: Tensor, columns: Columns = None) -> Tensor:
        blocks, scale, zero_point = self.blocks(values.detach().float(), columns)
        shift = middle(self.bits) if zero_point is None else zero_point.detach()
        return self.matrix(covered(blocks / scale.detach(), shift, self.bits), values.shape[1])

    @override
    def rows(self, rows: slice | Tensor) -> AffineGrid:
        return replace(
            self,
            scale=row_part(self.scale, rows),
            zero_point=None if self.zero_point is None else row_part(self.zero_point, rows),
            size=(row_count(rows, self.size[0]), self.size[1]),
        )

    def blocks(
        self, matrix: Tensor, columns: Columns = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Some columns of the weight, scale and zero point, shaped so that they broadcast.

        Whole rows of several groups become [rows, groups, group_size], padded with 0.
        """
        scale, zero_point = self.scale, self.zero_point
        if scale.shape[1] == 1:
            return matrix, scale, zero_point
        if columns is None:
            shift = None if zero_point is None else zero_point.unsqueeze(-1)
            return in_groups(matrix, self.group_size), scale.unsqueeze(-1), shift
        groups = column_indices(columns, self.size[1], scale.device) // self.group_size
        return matrix, scale[:, groups], None if zero_point is None else zero_point[:, groups]

    @staticmethod
    def matrix(blocks: Tensor, columns: int) -> Tensor:
        """Undo `blocks`: [rows, columns] again."""
        return blocks if blocks.ndim == 2 else blocks.flatten(1)[:, :columns]


def in_groups(matrix: Tensor, size: int) -> Tensor:
    """[rows, groups, size] of a matrix [rows, columns], the last group padded with 0."""
    return pad(matrix, (0, -matrix.shape[1] % size)).view(len(matrix), -1, size)


def middle(bits: int) -> float:
    """The constant zero point of symmetric formats; at one bit the codes stand for ± scale / 2."""
    return 0.5 if bits == 1 else float(2 ** (bits - 1))


def nearest_codes(steps: Tensor, zero_point: Tensor | None, bits: int) -> Tensor:
    """Codes, in float32, of weights that are counted in steps of their scale."""
    if zero_point is not None:
        return steps.round().add_(zero_point).clamp_(0, 2**bits - 1)
    if bits == 1:
        return (steps >= 0).float()
    return steps.round().add_(middle(bits)).clamp_(0, 2**bits - 1)


def covered(steps: Tensor, zero_point: Tensor | float, bits: int) -> Tensor:
    """Mask of weights, counted in steps, at most half a step beyond the outermost codes."""
    codes = steps + zero_point
    return (codes >= -0.5) & (codes <= float(2**bits) - 0.5)
