"""Lookup quantization: a book of 8-bit integers per layer, a scale per output channel."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from mezzotint.errors import FormatError
from mezzotint.formats.bitcast import as_bits, from_bits
from mezzotint.formats.book_sums import PEAK
from mezzotint.formats.coded_format import CodedFormat
from mezzotint.formats.forms import LookupSegment
from mezzotint.formats.grid import Grid
from mezzotint.formats.integer_book import fitted
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
class LutFormat(CodedFormat):
    """w ≈ scale · book[code]: 2^width levels for the whole layer, a scale per output channel.

    Levels lie where the weights do, as in a codebook, and are whole numbers from -127 to 127, so
    that 8-bit integer products compute them exactly. `codes`, the `scale` in bfloat16 and the
    `book`, ascending, are stored: 2^width bytes a layer more than a symmetric uniform format.
    """

    width: int

    def __post_init__(self) -> None:
        if not 1 <= self.width <= 6:
            raise FormatError(f"bits is {self.width}; a lookup format has 1 to 6")

    @property
    @override
    def name(self) -> str:
        return f"lut{self.width}/channel"

    @override
    def layout(self, shape: Shape) -> Mapping[str, TensorSpec]:
        rows, columns = matrix_shape(shape)
        return {
            "codes": TensorSpec((rows, packed_width(columns, self.width)), torch.uint8),
            "scale": TensorSpec((rows, 1), torch.int16),
            "book": TensorSpec((1, 2**self.width), torch.int8),
        }

    @override
    def grid(self, weight: Tensor, search: RangeSearch) -> LookupGrid:
        """Levels and scales; there is no range to clip, so `search` changes nothing."""
        size = matrix_shape(tuple(weight.shape))
        matrix = weight.detach().reshape(size)
        check_finite(matrix)
        found = fitted(matrix, 2**self.width)
        levels, scale = found.levels.to(weight.device), found.scale.to(weight.device)
        return LookupGrid(levels, size, scale, torch.bfloat16)

    @override
    def store_parameters(self, grid: Grid) -> dict[str, Tensor]:
        levels, scale = self._checked(grid)
        return {"scale": as_bits(scale.to(torch.bfloat16)), "book": levels.to(torch.int8)}

    @override
    def segments(self, tensors: Mapping[str, Tensor], shape: Shape) -> tuple[LookupSegment, ...]:
        scale = tensors["scale"].view(torch.bfloat16)
        return (LookupSegment(shape, self.width, tensors["codes"], tensors["book"], scale),)

    @override
    def check(self, tensors: Mapping[str, Tensor]) -> None:
        _check_scale(from_bits(tensors["scale"], torch.bfloat16))
        _check_levels(tensors["book"].float())

    def _checked(self, grid: Grid) -> tuple[Tensor, Tensor]:
        """Levels and scale, float32, of a grid that is one of this format.

        Raises:
            FormatError: naming what is not of this format.
        """
        if not isinstance(grid, LookupGrid) or grid.scale is None:
            raise FormatError(f"{self} stores levels with scales, not a {type(grid).__name__}")
        levels, scale = grid.levels.detach(), grid.scale.detach()
        layout = self.layout(grid.shape)
        if (levels.shape, scale.shape) != (layout["book"].shape, layout["scale"].shape):
            raise FormatError(
                f"{self} stores levels of shape {layout['book'].shape} and scales of shape "
                f"{layout['scale'].shape}, not {tuple(levels.shape)} and {tuple(scale.shape)}, for "
                f"a weight of shape {grid.shape}"
            )
        _check_levels(levels)
        _check_scale(scale)
        if not torch.equal(scale.to(torch.bfloat16).float(), scale):
            raise FormatError(f"{self} stores scales in torch.bfloat16; round them to it first")
        return levels, scale


def _check_scale(scale: Tensor) -> None:
    if not bool((torch.isfinite(scale) & (scale > 0)).all()):
        raise FormatError("scale holds values that are not positive and finite")


def _check_levels(levels: Tensor) -> None:
    if not bool(((levels == levels.round()) & (levels.abs() <= PEAK)).all()):
        raise FormatError(f"book holds levels that are not whole numbers from -{PEAK} to {PEAK}")
    if not bool((levels[:, 1:] > levels[:, :-1]).all()):
        raise FormatError("book holds levels that are not in ascending order")


@register_weight_format
def _lut(name: str) -> WeightFormat | None:
    match = re.fullmatch(rf"lut({NUMBER})/channel", name)
    return None if match is None else LutFormat(int(match[1]))
