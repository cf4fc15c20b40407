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

from mezzotint.formats.grid import Columns, Grid, checked_parameters


@dataclass(frozen=True)
class MixedGrid(Grid):
    """Segments of rows with a grid each, and where each output channel stands among them.

    Values, codes and parameters are in the order of the output channels. A parameter that only
    some segments have, such as the `levels` of two per row, has a row for each of their channels.

    Attributes:
        segments: grids of consecutive stored rows, parameters per row.
        order: int64 [out_channels], where each channel stands among the stored rows.
    """

    segments: tuple[Grid, ...]
    order: Tensor

    @property
    @override
    def shape(self) -> tuple[int, int]:
        return len(self.order), self.segments[0].shape[1]

    @property
    @override
    def parameters(self) -> Mapping[str, Tensor]:
        stored = [(each, each.parameters) for each in self.segments]
        names = dict.fromkeys(name for _, known in stored for name in known)
        return {
            name: torch.cat(
                [_by_row(known[name], each) for each, known in stored if name in known]
            ).index_select(0, self._channels_with(name).argsort())
            for name in names
        }

    @override
    def with_parameters(self, parameters: Mapping[str, Tensor]) -> Self:
        known = checked_parameters(self, parameters)
        changed: list[dict[str, Tensor]] = [{} for _ in self.segments]
        for name, parameter in known.items():
            having = self._having(name)
            rows = self._channels_with(name).argsort().argsort()
            counts = [self.segments[index].shape[0] for index in having]
            for index, part in zip(having, torch.split(rows, counts), strict=True):
                changed[index][name] = parameter.index_select(0, part)
        segments = zip(self.segments, changed, strict=True)
        return replace(self, segments=tuple(each.with_parameters(of) for each, of in segments))

    def _having(self, name: str) -> list[int]:
        """The segments that have a parameter of that name."""
        return [i for i, each in enumerate(self.segments) if name in each.parameters]

    def _channels_with(self, name: str) -> Tensor:
        """The output channels that have such a parameter, as they are stored."""
        return torch.cat([self.channels[index] for index in self._having(name)])

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

    def _joined(self, make: Callable[[Grid, Tensor], Tensor], matrix: Tensor) -> Tensor:
        parts = [
            make(segment, matrix.index_select(0, channels))
            for segment, channels in zip(self.segments, self.channels, strict=True)
        ]
        return torch.cat(parts).index_select(0, self.order)


def _by_row(parameter: Tensor, grid: Grid) -> Tensor:
    """A parameter of a grid, of which a single row stands for all of them, or for none."""
    return parameter.expand(grid.shape[0], -1)
