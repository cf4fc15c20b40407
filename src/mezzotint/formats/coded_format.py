"""The interface of weight formats that store one tensor of codes, of one width."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor
from typing_extensions import override

from mezzotint.formats.grid import Grid
from mezzotint.formats.weight_format import Codes, WeightFormat, code_pieces, packed


class CodedFormat(WeightFormat):
    """Packed `codes` of one width, and beside them the parameters of the grid.

    Such formats, one scale or book of levels per row, are the segments of mixed ones.

    Attributes:
        width: bits of a code, 1 to 8.
    """

    width: int

    @property
    @override
    def bits(self) -> float:
        return float(self.width)

    @abstractmethod
    def store_parameters(self, grid: Grid) -> dict[str, Tensor]:
        """The stored tensors beside the codes, such as scales, of a grid of this format.

        Raises:
            FormatError: the grid is none of this format.
        """

    @override
    def store(self, grid: Grid, codes: Codes) -> dict[str, Tensor]:
        parameters = self.store_parameters(grid)
        rows = [packed(piece, self.width) for piece in code_pieces(codes, grid.shape)]
        return {"codes": torch.cat(rows)} | parameters
