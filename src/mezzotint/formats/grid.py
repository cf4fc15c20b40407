"""The interface of grids: the values that the weights of one tensor can take.

A format chooses a grid (`WeightFormat.grid`), a rounding chooses a code for each weight, and the
format stores both (`WeightFormat.store`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Self

import torch
from torch import Tensor

from mezzotint.errors import FormatError
from mezzotint.formats.chunks import PIECE, row_chunks

#: Some columns of a matrix, as a slice or int64 indices; None for all of them.
Columns = slice | Tensor | None


class Grid(ABC):
    """The values that each weight of a matrix [out_channels, k] can take, numbered by codes.

    Everything is asked for whole rows or for some columns of all rows, so that roundings may go
    through a weight column by column. Parameters of a grid (scales, levels) may require gradients.
    """

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the weight, flattened to a matrix."""

    @property
    @abstractmethod
    def parameters(self) -> Mapping[str, Tensor]:
        """Trainable tensors by name: float32, in the order of the output channels."""

    @abstractmethod
    def with_parameters(self, parameters: Mapping[str, Tensor]) -> Self:
        """The same grid with some `parameters` replaced by tensors of the same shapes.

        They are rounded to what can be stored: scales to positive numbers of the stored dtype, zero
        points to whole numbers within the codes, levels to numbers that do not fall from one code
        to the next. Gradients pass straight through.

        Raises:
            FormatError: the grid has no parameter of that name, or it has another shape.
        """

    @abstractmethod
    def nearest(self, values: Tensor, columns: Columns = None) -> Tensor:
        """Codes of the nearest values of the grid: uint8 [rows, n], for `values` [rows, n]."""

    @abstractmethod
    def values(self, codes: Tensor, columns: Columns = None) -> Tensor:
        """The values of `codes`: float32 [rows, n], differentiable in the grid's parameters."""

    @abstractmethod
    def covers(self, values: Tensor, columns: Columns = None) -> Tensor:
        """Mask of `values` that are not clipped: at most half a step beyond the outermost ones."""

    @abstractmethod
    def rows(self, rows: slice | Tensor) -> Grid:
        """The grid of some rows alone."""

    def codes(self, values: Tensor, columns: Columns = None) -> Tensor:
        """Codes of `values` [rows, n] that lie on the grid already: uint8 [rows, n].

        Raises:
            FormatError: some do not.
        """
        values = values.detach()
        found = self.nearest(values, columns)
        off = self.values(found, columns).detach() != values
        if bool(off.any()):
            raise FormatError(
                f"{int(off.sum())} of {off.numel()} values do not lie on the grid that they are to "
                "be stored in; round them to it first"
            )
        return found

    def nearest_rows(self, weight: Tensor) -> Iterator[Tensor]:
        """`nearest` for a weight [out_channels, …], a few rows at a time."""
        return (grid.nearest(rows) for grid, rows in self._pieces(weight))

    def codes_of_rows(self, weight: Tensor) -> Iterator[Tensor]:
        """`codes` for a weight [out_channels, …], a few rows at a time."""
        return (grid.codes(rows) for grid, rows in self._pieces(weight))

    def _pieces(self, weight: Tensor) -> Iterator[tuple[Grid, Tensor]]:
        """The grid and the weights [n, k] of a few rows: temporaries stay small and in the cache.

        Raises:
            FormatError: the weight has another shape than the grid is for.
        """
        if weight.ndim < 2 or (len(weight), weight.shape[1:].numel()) != self.shape:
            raise FormatError(
                f"a weight of shape {tuple(weight.shape)} met a grid for {self.shape[0]} rows of "
                f"{self.shape[1]}"
            )
        for rows in row_chunks(*self.shape, PIECE):
            yield self.rows(rows), weight.detach()[rows].flatten(1)


def checked_parameters(grid: Grid, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The parameters of `grid`, those in `given` replaced.

    Raises:
        FormatError: the grid has no parameter of that name, or it has another shape.
    """
    known = dict(grid.parameters)
    for name, tensor in given.items():
        if name not in known:
            raise FormatError(f"the grid has no parameter {name!r}; it has {', '.join(known)}")
        if tensor.shape != known[name].shape:
            raise FormatError(
                f"{name} has shape {tuple(tensor.shape)}; the grid needs {tuple(known[name].shape)}"
            )
    return known | dict(given)


def row_part(parameter: Tensor, rows: slice | Tensor) -> Tensor:
    """Some rows of a parameter that has one row for each output channel, or one for all."""
    return parameter if len(parameter) == 1 else parameter[rows]


def row_count(rows: slice | Tensor, total: int) -> int:
    """The number of some of `total` rows."""
    return len(rows) if isinstance(rows, Tensor) else len(range(*rows.indices(total)))


def column_indices(columns: slice | Tensor, count: int, device: torch.device) -> Tensor:
    """Int64 indices of some of `count` columns."""
    if isinstance(columns, Tensor):
        return columns
    return torch.arange(*columns.indices(count), device=device)
