"""K-means quantization: each weight is one of a few levels that lie where the weights do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from typing_extensions import override

from mezzotint.errors import FormatError
from mezzotint.formats.bitcast import as_bits, from_bits
from mezzotint.formats.chunks import row_chunks
from mezzotint.formats.coded_format import CodedFormat
from mezzotint.formats.forms import LookupSegment
from mezzotint.formats.grid import Grid
from mezzotint.formats.kmeans import kmeans
from mezzotint.formats.lookup_grid import LookupGrid
from mezzotint.formats.packing import packed_width
from mezzotint.formats.ranges import RangeSearch
from mezzotint.formats.registry import NUMBER, register_weight_format
from mezzotint.formats.weight_format import (
    Shape,
    TensorSpec,
    WeightFormat,
    check_finite,
    matrix_shape,
)


@dataclass(frozen=True)
class CodebookFormat(CodedFormat):
    """w ≈ codebook[code]: 2^width levels per output channel (`kmeans4/channel`) or per tensor.

    Qua²SeDiMo (arXiv 2412.14628): K-Means C and K-Means A. Levels are found by Lloyd's algorithm,
    two levels exactly, and stored ascending in bfloat16, 16 bits each as the paper counts. bfloat16
    has float32's range, so no scale is needed; a level is off by 1/256 of itself at most, and codes
    are computed from the levels as stored. Against exact levels the squared error of emoji-turbo's
    weights grows by 0.04% at 4 bits and 1% at 6. Zero is not exact unless weights hold it often.
    """

    width: int
    granularity: Literal["tensor", "channel"] = "channel"

    def __post_init__(self) -> None:
        if not 1 <= self.width <= 8:
            raise FormatError(f"bits is {self.width}; a codebook format has 1 to 8")

    @property
    @override
    def name(self) -> str:
        return f"kmeans{self.width}/{self.granularity}"

    @override
    def layout(self, shape: Shape) -> Mapping[str, TensorSpec]:
        rows, columns = matrix_shape(shape)
        books = rows if self.granularity == "channel" else 1
        return {
            "codes": TensorSpec((rows, packed_width(columns, self.width)), torch.uint8),
            "codebook": TensorSpec((books, 2**self.width), torch.int16),
        }

    @override
    def grid(self, weight: Tensor, search: RangeSearch) -> LookupGrid:
        """Levels and scales of every row; there is no range to clip, so `search` changes nothing.

        Takes about 24 bytes per weight of the largest codebook while it runs.
        """
        matrix = weight.detach().reshape(matrix_shape(tuple(weight.shape))).float().contiguous()
        check_finite(matrix)
        rows, columns = matrix.shape
        return LookupGrid(self._codebook(matrix).float(), (rows, columns), dtype=torch.bfloat16)

    @override
    def store_parameters(self, grid: Grid) -> dict[str, Tensor]:
        levels = self._checked(grid).levels.detach()
        return {"codebook": as_bits(levels.to(torch.bfloat16))}

    @override
    def segments(self, tensors: Mapping[str, Tensor], shape: Shape) -> tuple[LookupSegment, ...]:
        levels = tensors["codebook"].view(torch.bfloat16)
        return (LookupSegment(shape, self.width, tensors["codes"], levels),)

    def levels(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Float32 [out_channels or 1, 2^width], ascending."""
        return from_bits(tensors["codebook"], torch.bfloat16)

    @override
    def check(self, tensors: Mapping[str, Tensor]) -> None:
        _check_levels(self.levels(tensors))

    def _checked(self, grid: Grid) -> LookupGrid:
        """The grid, if it is one of this format.

        Raises:
            FormatError: naming what is not of this format.
        """
        if not isinstance(grid, LookupGrid) or grid.scale is not None:
            raise FormatError(f"{self} stores levels without scales, not a {type(grid).__name__}")
        levels = grid.levels.detach()
        expected = tuple(self.layout(grid.shape)["codebook"].shape)
        if levels.shape != expected:
            raise FormatError(
                f"{self} stores levels of shape {expected}, not {tuple(levels.shape)}, for a "
                f"weight of shape {grid.shape}"
            )
        _check_levels(levels)
        if not torch.equal(levels.to(torch.bfloat16).float(), levels):
            raise FormatError(f"{self} stores levels in torch.bfloat16; round them to it first")
        return grid

    def _codebook(self, matrix: Tensor) -> Tensor:
        """Levels as stored, bfloat16 [rows or 1, 2^width]."""
        count = 2**self.width
        if self.granularity == "tensor":
            levels = kmeans(matrix.view(1, -1), count)
        else:
            chunks = row_chunks(*matrix.shape)
            levels = torch.cat([kmeans(matrix[rows], count) for rows in chunks])
        # The largest float32 values would be rounded up to infinity.
        limit = torch.finfo(torch.bfloat16).max
        return levels.clamp_(-limit, limit).to(torch.bfloat16)


def _check_levels(levels: Tensor) -> None:
    if not bool(torch.isfinite(levels).all()):
        raise FormatError("codebook holds values that are not finite")
    if not bool((levels[:, 1:] >= levels[:, :-1]).all()):
        raise FormatError("codebook holds levels that are not in ascending order")


@register_weight_format
def _kmeans(name: str) -> WeightFormat | None:
    match = re.fullmatch(rf"kmeans({NUMBER})/(tensor|channel)", name)
    if match is None:
        return None
    return CodebookFormat(int(match[1]), "tensor" if match[2] == "tensor" else "channel")
