"""Formats and weights for the tests of number formats."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from mezzotint.formats import (
    LookupSegment,
    Segment,
    Shape,
    UniformFormat,
    WeightFormat,
    from_bits,
    parse_weight_format,
)

WIDTHS = range(1, 9)
GRANULARITIES = ("tensor", "channel", "channel/float32", "group8")
NAMES = tuple(
    f"{kind}{width}/{granularity}"
    for kind in ("int", "uint")
    for width in WIDTHS
    for granularity in GRANULARITIES
)

#: One row, one column, around a packed byte, ragged last groups, convolutions.
SHAPES = ((1, 1), (1, 7), (7, 1), (3, 8), (2, 9), (5, 33), (4, 3, 3, 3), (2, 4, 1, 1))


def parsed(name: str) -> UniformFormat:
    found = parse_weight_format(name)
    assert isinstance(found, UniformFormat)
    return found


def formats(least: int = 1, symmetric: tuple[bool, ...] = (True, False)):
    """Any uniform format of `least` bits or more."""
    kept = [f for f in map(parsed, NAMES) if f.width >= least and f.symmetric in symmetric]
    return st.sampled_from(kept)


@st.composite
def weights(
    draw, limit: float = 1.5e38, rows: int = 4, columns: int = 40, least_rows: int = 1
) -> Tensor:
    """Matrices of float32, from subnormal to huge, often with zeros and repeated values."""
    shape = draw(st.tuples(st.integers(least_rows, rows), st.integers(1, columns)))
    magnitude = draw(st.sampled_from([1e-38, 1e-20, 1.0, 1e6, limit]))
    magnitude = float(np.float32(min(magnitude, limit)))
    elements = st.floats(-magnitude, magnitude, width=32)
    return torch.from_numpy(draw(arrays(np.float32, shape, elements=elements)))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def step(fmt: UniformFormat, tensors: dict[str, Tensor], shape: tuple[int, ...]) -> Tensor:
    """The scale that each weight has, of `shape`."""
    rows = shape[0]
    columns = int(np.prod(shape[1:]))
    scale = from_bits(tensors["scale"], fmt.scale_dtype)
    scale = scale.repeat_interleave(fmt.group_size or columns, dim=1)[:, :columns]
    return scale.expand(rows, columns).reshape(shape)


def value_of(segment: Segment) -> Tensor:
    """A segment's rows by the definition of its form: float64 [rows, columns]."""
    codes = segment.unpacked().long()
    if isinstance(segment, LookupSegment):
        worth = segment.levels.double().expand(len(codes), -1).gather(1, codes)
        return worth if segment.scale is None else worth * segment.scale.double()
    size = segment.group_size or segment.columns
    group = torch.arange(segment.columns) // size

    def spread(parameter: Tensor) -> Tensor:
        return parameter.double().expand(len(codes), -1)[:, group]

    zero_point = segment.zero_point
    shift = segment.offset if zero_point is None else spread(zero_point)
    return (codes - shift) * spread(segment.scale)


def unpacked(fmt: WeightFormat, tensors: Mapping[str, Tensor], shape: Shape) -> Tensor:
    """Codes of a weight that is stored in one segment, uint8 [out_channels, k]."""
    (segment,) = fmt.segments(tensors, shape)
    return segment.unpacked()
