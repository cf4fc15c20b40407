"""Encoding by definition, a block at a time: `WeightFormat.encode` must agree with it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mezzotint.formats import RangeSearch, UniformFormat

Parameters = tuple[Tensor, Tensor]
"""Scale and zero point, float32 scalars."""


def blocks(fmt: UniformFormat, weight: Tensor) -> list[Tensor]:
    """The weights that share a scale, one after another as scales are stored."""
    matrix = weight.flatten(1).float()
    if fmt.granularity == "tensor":
        return [matrix.flatten()]
    return [block for row in matrix for block in row.split(fmt.group_size or len(row))]


def candidate(fmt: UniformFormat, block: Tensor, ratio: float) -> Parameters:
    """Scale and zero point of the range of `block`, shrunk to `ratio`."""
    low, high = min(float(block.min()), 0.0), max(float(block.max()), 0.0)
    levels = 2**fmt.width - 1
    if fmt.symmetric:
        peak = max(-low, high)
        if fmt.width == 1:
            peak = float(block.double().abs().mean())
        low, high, levels = -peak, peak, max(1, levels - 1)
    info = torch.finfo(fmt.scale_dtype)
    exact = min(max((high - low) * ratio / levels, info.tiny), info.max)
    scale = torch.tensor(exact, dtype=torch.float64).to(fmt.scale_dtype)
    if fmt.scale_dtype == torch.bfloat16 and not fmt.symmetric and float(scale) < exact:
        scale = scale.nextafter(torch.tensor(math.inf, dtype=torch.bfloat16))
    if fmt.symmetric:
        return scale.float(), torch.tensor(0.5 if fmt.width == 1 else 2.0 ** (fmt.width - 1))
    zero_point = round(-low * ratio / float(scale))
    return scale.float(), torch.tensor(float(min(max(zero_point, 0), levels)))


def codes(fmt: UniformFormat, block: Tensor, parameters: Parameters) -> Tensor:
    """The nearest codes, uint8."""
    scale, zero_point = parameters
    if fmt.symmetric and fmt.width == 1:
        return (block / scale >= 0).to(torch.uint8)
    steps = (block / scale).round() + zero_point
    return steps.clamp(0, 2**fmt.width - 1).to(torch.uint8)


def error(fmt: UniformFormat, block: Tensor, parameters: Parameters, power: float) -> float:
    """Σ |w - ŵ|^power, in units of the largest weight to that power."""
    scale, zero_point = (parameter.double() for parameter in parameters)
    worth = (codes(fmt, block, parameters).double() - zero_point) * scale
    peak = block.double().abs().max().clamp(min=1e-300)
    return float(((worth - block.double()).abs() / peak).pow(power).sum())


def candidates(fmt: UniformFormat, block: Tensor, search: RangeSearch) -> list[Parameters]:
    """Every scale and zero point that a range search looks at."""
    return [candidate(fmt, block, ratio) for ratio in search.ratios]


def indices(levels: Tensor, weight: Tensor) -> Tensor:
    """Codes of a codebook [rows or 1, 2^bits]: how many midpoints of levels lie below a weight."""
    midpoints = ((levels[:, 1:].double() + levels[:, :-1].double()) / 2).float()
    return (weight.flatten(1).float().unsqueeze(2) > midpoints.unsqueeze(1)).sum(2).to(torch.uint8)
