"""Uniform affine quantization: w ≈ scale · (code - zero_point)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from typing_extensions import override

from mezzotint.errors import FormatError
from mezzotint.formats.affine_grid import AffineGrid
from mezzotint.formats.bitcast import as_bits, from_bits, integer_dtype
from mezzotint.formats.chunks import PIECE, row_chunks
from mezzotint.formats.coded_format import CodedFormat
from mezzotint.formats.forms import AffineSegment
from mezzotint.formats.grid import Grid
from mezzotint.formats.packing import packed_width
from mezzotint.formats.ranges import RangeSearch
from mezzotint.formats.scales import ScaleChoice
from mezzotint.formats.weight_format import Shape, TensorSpec, check_finite, matrix_shape

Granularity = Literal["tensor", "channel", "group"]


@dataclass(frozen=True)
class UniformFormat(CodedFormat):
    """1–8 bit integers with one scale per tensor, output channel, or group of inputs.

    Symmetric (`int4/channel`): L = 2^(bits-1) - 1, scale = absmax / L, codes in [-L-1, L]; at one
    bit the codes are ±1 and the scale is the mean magnitude. Asymmetric (`uint4/channel`): the
    range is widened to contain 0, scale = (max - min) / (2^bits - 1), zero_point =
    round(-min / scale). MixDQ, section 3; Nagel et al. 2021, section 2.

    Codes are stored unsigned. Scales are bfloat16, or float32 per tensor, where there is one only;
    codes are computed from the scale as stored, so its rounding does no harm. With `wide_scale`,
    scales per channel are float32 (`int4/channel/float32`), as plans of versions 1 and 2 had them.
    Magnitudes above half of float32's largest may decode to infinity.
    """

    width: int
    symmetric: bool = True
    granularity: Granularity = "channel"
    group_size: int | None = None
    wide_scale: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.width <= 8:
            raise FormatError(f"bits is {self.width}; a uniform format has 1 to 8")
        if (self.granularity == "group") != (self.group_size is not None):
            raise FormatError("group_size goes with granularity 'group', and only with it")
        if self.group_size is not None and self.group_size < 2:
            raise FormatError(f"group_size is {self.group_size}; a group has 2 weights or more")
        if self.wide_scale and self.granularity != "channel":
            raise FormatError("wide_scale goes with granularity 'channel', and only with it")

    @property
    @override
    def name(self) -> str:
        kind = "int" if self.symmetric else "uint"
        suffix = f"group{self.group_size}" if self.group_size else self.granularity
        return f"{kind}{self.width}/{suffix}{'/float32' if self.wide_scale else ''}"

    @property
    def scale_dtype(self) -> torch.dtype:
        """Dtype that scales are rounded to."""
        wide = self.wide_scale or self.granularity == "tensor"
        return torch.float32 if wide else torch.bfloat16

    def scale_shape(self, shape: Shape) -> tuple[int, int]:
        """[output channels, groups]; [1, 1] per tensor."""
        rows, columns = matrix_shape(shape)
        if self.granularity == "tensor":
            return (1, 1)
        groups = -(-columns // self.group_size) if self.group_size else 1
        return (rows, groups)

    @override
    def layout(self, shape: Shape) -> Mapping[str, TensorSpec]:
        rows, columns = matrix_shape(shape)
        scales = self.scale_shape(shape)
        specs = {
            "codes": TensorSpec((rows, packed_width(columns, self.width)), torch.uint8),
            "scale": TensorSpec(scales, integer_dtype(self.scale_dtype)),
        }
        if not self.symmetric:
            specs["zero_point"] = TensorSpec(scales, torch.uint8)
        return specs

    @override
    def grid(self, weight: Tensor, search: RangeSearch) -> AffineGrid:
        rows, columns = size = matrix_shape(tuple(weight.shape))
        matrix = weight.detach().reshape(size)
        check_finite(matrix)
        # A few rows at a time: the temporaries are many, and stay small and in the cache.
        pieces = [matrix[part] for part in row_chunks(rows, columns, PIECE)]
        if self.granularity == "tensor":
            scale, zero_point = self._scales.best(pieces, search)
        else:
            found = [self._scales.best((piece.float(),), search) for piece in pieces]
            scale = torch.cat([each for each, _ in found])
            shifts = [each for _, each in found if each is not None]
            zero_point = torch.cat(shifts) if shifts else None
        shift = None if zero_point is None else zero_point.flatten(1)
        return AffineGrid(
            self.width, scale.flatten(1), shift, size, self._group(columns), self.scale_dtype
        )

    @override
    def store_parameters(self, grid: Grid) -> dict[str, Tensor]:
        scale, zero_point = self._checked(grid)
        tensors = {"scale": as_bits(scale.to(self.scale_dtype))}
        return (
            tensors if zero_point is None else tensors | {"zero_point": zero_point.to(torch.uint8)}
        )

    @override
    def segments(self, tensors: Mapping[str, Tensor], shape: Shape) -> tuple[AffineSegment, ...]:
        scale = tensors["scale"].view(self.scale_dtype)
        zero_point = None if self.symmetric else tensors["zero_point"]
        group = self.group_size if scale.shape[1] > 1 else None
        return (AffineSegment(shape, self.width, tensors["codes"], scale, zero_point, group),)

    @override
    def check(self, tensors: Mapping[str, Tensor]) -> None:
        scale = from_bits(tensors["scale"], self.scale_dtype)
        if not bool((torch.isfinite(scale) & (scale > 0)).all()):
            raise FormatError("scale holds values that are not positive and finite")
        if not self.symmetric and int(tensors["zero_point"].max()) >= 2**self.width:
            raise FormatError(f"zero_point holds values that do not fit {self.width} bits")

    def _group(self, columns: int) -> int:
        """Columns that share a scale; a group wider than a row ends with it."""
        return min(self.group_size or columns, columns)

    @property
    def _scales(self) -> ScaleChoice:
        per_tensor = self.granularity == "tensor"
        return ScaleChoice(
            self.width, self.symmetric, per_tensor, self.group_size, self.scale_dtype
        )

    def _checked(self, grid: Grid) -> tuple[Tensor, Tensor | None]:
        """Scale and zero point, float32, of a grid that is one of this format.

        Raises:
            FormatError: naming what is not of this format.
        """
        if not isinstance(grid, AffineGrid):
            raise FormatError(f"{self} stores affine grids, not a {type(grid).__name__}")
        shape, group = self.scale_shape(grid.shape), self._group(grid.shape[1])
        if (grid.bits, grid.scale.shape, grid.group_size) != (self.width, shape, group):
            raise FormatError(
                f"{self} stores {self.width} bits and scales {shape}, not {grid.bits} bits and "
                f"{tuple(grid.scale.shape)}, for a weight of shape {grid.shape}"
            )
        scale = grid.scale.detach()
        if not torch.equal(scale.to(self.scale_dtype).float(), scale):
            raise FormatError(f"{self} stores scales in {self.scale_dtype}; round them to it first")
        if not bool((torch.isfinite(scale) & (scale > 0)).all()):
            raise FormatError("scale holds values that are not positive and finite")
        if grid.zero_point is None and self.symmetric:
            return scale, None
        if grid.zero_point is not None and not self.symmetric:
            zero_point = grid.zero_point.detach()
            whole = zero_point.round().clamp(0, 2**self.width - 1)
            if zero_point.shape == shape and torch.equal(whole, zero_point):
                return scale, zero_point
        raise FormatError(f"the zero points of the grid are none that {self} stores")
