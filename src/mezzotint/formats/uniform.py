"""Uniform affine quantization: w ≈ scale · (code - zero_point)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad
from typing_extensions import override

from mezzotint.errors import FormatError
from mezzotint.formats.base import (
    MINMAX,
    RangeSearch,
    Shape,
    TensorSpec,
    WeightFormat,
    check_finite,
    matrix_shape,
)
from mezzotint.formats.bitcast import as_bits, from_bits, integer_dtype
from mezzotint.formats.packing import pack, packed_width, unpack

Granularity = Literal["tensor", "channel", "group"]

#: Encoded together: more would leave the cache, fewer would be mostly overhead.
_WEIGHTS_AT_ONCE = 2**18


@dataclass(frozen=True)
class UniformFormat(WeightFormat):
    """1–8 bit integers with one scale per tensor, output channel, or group of inputs.

    Symmetric (`int4/channel`): L = 2^(bits-1) - 1, scale = absmax / L, codes in [-L-1, L]; at one
    bit the codes are ±1 and the scale is the mean magnitude. Asymmetric (`uint4/channel`): the
    range is widened to contain 0, scale = (max - min) / (2^bits - 1), zero_point =
    round(-min / scale). MixDQ, section 3; Nagel et al. 2021, section 2.

    Codes are stored unsigned. Scales are float32, or bfloat16 per group, where they cost more;
    codes are computed from the scale as stored, so its rounding does no harm. Magnitudes above half
    of float32's largest may decode to infinity.
    """

    width: int
    symmetric: bool = True
    granularity: Granularity = "channel"
    group_size: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.width <= 8:
            raise FormatError(f"bits is {self.width}; a uniform format has 1 to 8")
        if (self.granularity == "group") != (self.group_size is not None):
            raise FormatError("group_size goes with granularity 'group', and only with it")
        if self.group_size is not None and self.group_size < 2:
            raise FormatError(f"group_size is {self.group_size}; a group has 2 weights or more")

    @property
    @override
    def name(self) -> str:
        kind = "int" if self.symmetric else "uint"
        suffix = f"group{self.group_size}" if self.group_size else self.granularity
        return f"{kind}{self.width}/{suffix}"

    @property
    @override
    def bits(self) -> float:
        return float(self.width)

    @property
    def offset(self) -> float:
        """The symmetric formats' constant zero point."""
        return 0.5 if self.width == 1 else float(2 ** (self.width - 1))

    @property
    def scale_dtype(self) -> torch.dtype:
        """What scales are rounded to."""
        return torch.bfloat16 if self.granularity == "group" else torch.float32

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
    def encode(self, weight: Tensor, search: RangeSearch = MINMAX) -> dict[str, Tensor]:
        rows, columns = matrix_shape(tuple(weight.shape))
        matrix = weight.detach().reshape(rows, columns)
        check_finite(matrix)
        # A few rows at a time: the temporaries are many, and stay small and in the cache.
        pieces = torch.split(matrix, max(1, _WEIGHTS_AT_ONCE // columns))
        families = [pieces] if self.granularity == "tensor" else ((p.float(),) for p in pieces)
        codes, scales, zero_points = [], [], []
        for family in families:
            scale, zero_point = self._best(family, search)
            for piece in family:
                steps = self._blocks(piece.float()) / scale
                levels = self._codes(steps, zero_point).to(torch.uint8)
                codes.append(pack(self._matrix(levels, len(piece), columns), self.width))
            scales.append(scale)
            zero_points.append(zero_point)
        stored = self.scale_shape(tuple(weight.shape))
        tensors = {
            "codes": torch.cat(codes),
            "scale": as_bits(torch.cat(scales).view(stored).to(self.scale_dtype)),
        }
        if not self.symmetric:
            tensors["zero_point"] = torch.cat(zero_points).view(stored).to(torch.uint8)
        return tensors

    def codes(self, tensors: Mapping[str, Tensor], shape: Shape) -> Tensor:
        """Unsigned codes, uint8 [out_channels, k]."""
        return unpack(tensors["codes"], self.width, matrix_shape(shape)[1])

    @override
    def decode(self, tensors: Mapping[str, Tensor], shape: Shape) -> Tensor:
        rows, columns = matrix_shape(shape)
        blocks = self._blocks(self.codes(tensors, shape)).float()
        scale = from_bits(tensors["scale"], self.scale_dtype).view(*blocks.shape[:-1], 1)
        if self.symmetric:
            blocks = blocks.sub_(self.offset)
        else:
            blocks = blocks.sub_(tensors["zero_point"].view(*blocks.shape[:-1], 1))
        return self._matrix(blocks.mul_(scale), rows, columns).reshape(shape)

    @override
    def check(self, tensors: Mapping[str, Tensor]) -> None:
        scale = from_bits(tensors["scale"], self.scale_dtype)
        if not bool((torch.isfinite(scale) & (scale > 0)).all()):
            raise FormatError("scale holds values that are not positive and finite")
        if not self.symmetric and int(tensors["zero_point"].max()) >= 2**self.width:
            raise FormatError(f"zero_point holds values that do not fit {self.width} bits")

    def _blocks(self, matrix: Tensor) -> Tensor:
        """[…, n]: the weights that share a scale are the last dimension (zero-padded)."""
        if self.granularity == "tensor":
            return matrix.reshape(1, 1, -1)
        if self.group_size is None:
            return matrix.unsqueeze(1)
        # A group wider than a row ends with it.
        size = min(self.group_size, matrix.shape[1])
        return pad(matrix, (0, -matrix.shape[1] % size)).view(matrix.shape[0], -1, size)

    def _present(self, matrix: Tensor) -> Tensor:
        """1 for a weight, 0 for the padding of a row's last group; broadcasts to the blocks."""
        if self.group_size is None:
            return matrix.new_ones(1, dtype=torch.float32)
        return self._blocks(matrix.new_ones(1, matrix.shape[1], dtype=torch.float32))

    def _matrix(self, blocks: Tensor, rows: int, columns: int) -> Tensor:
        return blocks.reshape(rows, -1)[:, :columns]

    def _ranges(self, pieces: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Of pieces that share their scales. Float64: the width of a range cannot overflow."""
        if self.symmetric and self.width == 1:
            peak = self._mean_magnitude(pieces)
            return -peak, peak
        low, high = self._extremes(pieces[0])
        for lowest, highest in map(self._extremes, pieces[1:]):
            low, high = torch.minimum(low, lowest), torch.maximum(high, highest)
        if not self.symmetric:
            return low.clamp(max=0), high.clamp(min=0)
        peak = torch.maximum(-low, high)
        return -peak, peak

    def _extremes(self, piece: Tensor) -> tuple[Tensor, Tensor]:
        blocks = self._blocks(piece.float())
        return blocks.amin(-1, keepdim=True).double(), blocks.amax(-1, keepdim=True).double()

    def _mean_magnitude(self, pieces: Sequence[Tensor]) -> Tensor:
        """Per block; the padding of a row's last group does not count."""
        total = count = torch.zeros(1, dtype=torch.float64, device=pieces[0].device)
        for piece in pieces:
            blocks = self._blocks(piece.float())
            total = total + blocks.abs().sum(-1, keepdim=True, dtype=torch.float64)
            count = count + self._present(piece).expand_as(blocks).sum(-1, keepdim=True)
        return total / count

    def _parameters(self, low: Tensor, high: Tensor, ratio: float) -> tuple[Tensor, Tensor]:
        """Scale (as stored) and zero point, float32, of the range shrunk to `ratio`."""
        levels = 2**self.width - 1
        if self.symmetric:
            levels = 1 if self.width == 1 else levels - 1
        info = torch.finfo(self.scale_dtype)
        # A dead block keeps a harmless scale of its own; its neighbours are not touched.
        exact = ((high - low) * ratio / levels).clamp(info.tiny, info.max)
        scale = exact.to(self.scale_dtype)
        if self.scale_dtype == torch.bfloat16 and not self.symmetric:
            # 255 steps of a scale rounded down would miss the end of the range by half a step.
            scale = torch.where(scale < exact, scale.nextafter(scale.new_tensor(math.inf)), scale)
        scale = scale.float()
        if self.symmetric:
            return scale, torch.full_like(scale, self.offset)
        zero_point = (-low * ratio / scale).round().clamp(0, 2**self.width - 1)
        return scale, zero_point.float()

    def _codes(self, steps: Tensor, zero_point: Tensor) -> Tensor:
        """Codes, in float32, of weights counted in steps of their scale."""
        if self.symmetric and self.width == 1:
            return (steps >= 0).float()
        return steps.round().add_(zero_point).clamp_(0, 2**self.width - 1)

    def _best(self, pieces: Sequence[Tensor], search: RangeSearch) -> tuple[Tensor, Tensor]:
        """Scale and zero point of pieces that share them: of least Σ|w - ŵ|^p, block by block."""
        bounds = self._ranges(pieces)
        best_scale, best_zero = self._parameters(*bounds, 1.0)
        if search.steps == 1:
            return best_scale, best_zero
        best_error = torch.full_like(bounds[0], math.inf)
        for ratio in search.ratios:
            scale, zero_point = self._parameters(*bounds, ratio)
            total = self._error(pieces, scale, zero_point, search.power)
            better = total < best_error
            best_error = torch.where(better, total, best_error)
            best_scale = torch.where(better, scale, best_scale)
            best_zero = torch.where(better, zero_point, best_zero)
        return best_scale, best_zero

    def _error(
        self, pieces: Sequence[Tensor], scale: Tensor, zero_point: Tensor, power: float
    ) -> Tensor:
        """Σ|w - ŵ|^power per block, float64."""
        total = torch.zeros_like(scale, dtype=torch.float64)
        for piece in pieces:
            # In steps of the scale, where no power can overflow or vanish.
            steps = self._blocks(piece.float()) / scale
            error = self._codes(steps, zero_point).sub_(zero_point).sub_(steps)
            if self.group_size is not None:
                error.mul_(self._present(piece))
            error = error.square_() if power == 2 else error.abs_().pow_(power)
            total += error.sum(-1, keepdim=True, dtype=torch.float64)
        return total.mul_(scale.double().pow(power))
