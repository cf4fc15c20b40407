"""Values from a table: w = levels[code], or scale · levels[code]."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import torch
from torch import Tensor
from typing_extensions import override

from mezzotint.formats.compiled import compiled_for
from mezzotint.formats.grid import Columns, Grid, checked_parameters, row_count, row_part
from mezzotint.formats.kmeans import borders
from mezzotint.formats.straight_through import straight_through


@dataclass(frozen=True)
class LookupGrid(Grid):
    """A table of levels per row, or one for all; with a scale per row where there is one.

    Attributes:
        levels: float32 [rows or 1, count], ascending, values that `dtype` holds exactly.
        size: rows and columns.
        scale: float32 [rows or 1, 1], or None for 1.
        dtype: of what is stored: the scale where there is one, else the levels.
    """

    levels: Tensor
    size: tuple[int, int]
    scale: Tensor | None = None
    dtype: torch.dtype = torch.float32

    @property
    @override
    def shape(self) -> tuple[int, int]:
        return self.size

    @property
    @override
    def parameters(self) -> Mapping[str, Tensor]:
        return {"levels": self.levels} if self.scale is None else {"scale": self.scale}

    @override
    def with_parameters(self, parameters: Mapping[str, Tensor]) -> Self:
        known = checked_parameters(self, parameters)
        info = torch.finfo(self.dtype)
        if self.scale is not None:
            scale = known["scale"]
            stored = scale.detach().clamp(info.tiny, info.max).to(self.dtype).float()
            return replace(self, scale=straight_through(stored, scale))
        levels = known["levels"]
        # Every level keeps its code: one below those before it is raised to them, not sorted away.
        stored = levels.detach().cummax(1).values.clamp(info.min, info.max).to(self.dtype).float()
        return replace(self, levels=straight_through(stored, levels))

    @override
    def nearest(self, values: Tensor, columns: Columns = None) -> Tensor:
        scale = None if self.scale is None else self.scale.detach()
        return nearest_levels(values.detach().float().contiguous(), scale, self._borders)

    @override
    def values(self, codes: Tensor, columns: Columns = None) -> Tensor:
        worth = self.levels.expand(len(codes), -1).gather(1, codes.long())
        return worth if self.scale is None else worth * self.scale

    @override
    def covers(self, values: Tensor, columns: Columns = None) -> Tensor:
        levels, values = self.levels.detach(), self._unscaled(values)
        low, high = levels[:, :1], levels[:, -1:]
        below, above = levels[:, 1:2] - low, high - levels[:, -2:-1]
        return (values >= low - below / 2) & (values <= high + above / 2)

    @override
    def rows(self, rows: slice | Tensor) -> LookupGrid:
        scale = None if self.scale is None else row_part(self.scale, rows)
        levels = row_part(self.levels, rows)
        return replace(
            self, levels=levels, scale=scale, size=(row_count(rows, self.size[0]), self.size[1])
        )

    def _unscaled(self, values: Tensor) -> Tensor:
        values = values.detach().float()
        return values if self.scale is None else values / self.scale.detach()

    @cached_property
    def _borders(self) -> Tensor:
        """Between neighbouring levels: [rows or 1, count - 1]."""
        return borders(self.levels.detach())


def nearest_levels(matrix: Tensor, scale: Tensor | None, between: Tensor) -> Tensor:
    """Numbers of borders below each value of a matrix, uint8 of its shape.

    Args:
        matrix: float32 [rows, n], contiguous.
        scale: float32 [rows or 1, 1] that the borders are to be multiplied by; None for 1.
        between: ascending, float32 [rows or 1, at most 255].
    """
    compiled = compiled_for(matrix, scale, between)
    if compiled is not None:
        return compiled.nearest_levels(matrix, scale, between)
    values = matrix if scale is None else matrix / scale
    table = between[0] if len(between) == 1 else between
    return torch.searchsorted(table, values, out_int32=True).to(torch.uint8)
