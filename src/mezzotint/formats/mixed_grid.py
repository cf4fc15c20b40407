"""Rows of several grids in one: each output channel has the values of its segment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Self

import torch
from torch import Tensor
from typing_extensions import override

from mezzotint.formats.affine_grid import AffineGrid
from mezzotint.formats.grid import Columns, Grid, checked_parameters


@dataclass(frozen=True)
class MixedGrid(Grid):
    """Segments of rows with a grid each, and where each output channel stands among them.

    Values, codes and parameters are in the order of the output channels.

    Attributes:
        segments: grids of consecutive stored rows, one scale per row.
        order: int64 [out_channels], where each channel stands among the stored rows.
    """

    segments: tuple[AffineGrid, ...]
    order: Tensor

    @property
    @override
    def shape(self) -> tuple[int, int]:
        return len(self.order), self.segments[0].shape[1]

    @property
    @override
    def parameters(self) -> Mapping[str, Tensor]:
        stored = [segment.parameters for segment in self.segments]
        return {
            name: torch.cat([each[name] for each in stored]).index_select(0, self.order)
            for name in stored[0]
        }

    @override
    def with_parameters(self, parameters: Mapping[str, Tensor]) -> Self:
        known = checked_parameters(self, parameters)
        segments = [
            segment.with_parameters({n: p.index_select(0, rows) for n, p in known.items()})
            for segment, rows in zip(self.segments, self.channels, strict=True)
        ]
        return replace(self, segments=tuple(segments))

    @override
    def nearest(self, values: Tensor, columns: Columns = None) -> Tensor:
        return self._joined(lambda segment, part: segment.nearest(part, columns), values)

    @override
    def values(self, codes: Tensor, columns: Columns = None) -> Tensor:
        return self._joined(lambda segment, part: segment.values(part, columns), codes)

    @override
    def covers(self, values: Tensor, columns: Columns = None) -> Tensor:
        return self._joined(lambda segment, part: segment.covers(part, columns), values)

    @override
    def rows(self, rows: slice | Tensor) -> MixedGrid:
        places = self.order[rows]
        stored = places.sort().values
        segments = []
        for segment, start in zip(self.segments, self.starts, strict=True):
            held = (stored >= start) & (stored < start + segment.shape[0])
            segments.append(segment.rows(stored[held] - start))
        return MixedGrid(tuple(segments), torch.searchsorted(stored, places))

    @property
    def starts(self) -> tuple[int, ...]:
        """The first stored row of each segment."""
        counts = [segment.shape[0] for segment in self.segments]
        return tuple(accumulate(counts[:-1], initial=0))

    @cached_property
    def channels(self) -> tuple[Tensor, ...]:
        """The output channels of each segment, int64, as they are stored."""
        counts = [segment.shape[0] for segment in self.segments]
        return torch.split(self.order.argsort(), counts)

    def _joined(self, make: Callable[[AffineGrid, Tensor], Tensor], matrix: Tensor) -> Tensor:
        parts = [
            make(segment, matrix.index_select(0, channels))
            for segment, channels in zip(self.segments, self.channels, strict=True)
        ]
        return torch.cat(parts).index_select(0, self.order)
