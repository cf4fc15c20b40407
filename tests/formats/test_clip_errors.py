"""Errors of candidate ranges, against their definition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mezzotint.formats import ClipCandidates, UniformFormat
from mezzotint.formats.clip_errors import lane_sums, summed_errors
from tests.formats import reference
from tests.formats.strategies import formats, normal, weights


def added_in_lanes(values: list[float]) -> float:
    """The definition: 256 lanes, each from first to last, then folded in half."""
    lanes = [0.0] * 256
    for index, value in enumerate(values):
        lanes[index % 256] += value
    while len(lanes) > 1:
        half = len(lanes) // 2
        lanes = [lanes[i] + lanes[half + i] for i in range(half)]
    return lanes[0]


@pytest.mark.parametrize("count", [1, 2, 3, 31, 255, 256, 257, 1000])
def test_sums_are_in_lanes_that_are_folded(count: int):
    values = normal(3, count, seed=count).exp()
    assert lane_sums(values).tolist() == [added_in_lanes(row) for row in values.double().tolist()]


@given(fmt=formats(), weight=weights(limit=1e30), power=st.sampled_from([2.0, 1.0, 2.4]))
def test_errors_are_those_of_the_nearest_codes(fmt: UniformFormat, weight: Tensor, power: float):
    blocks = reference.blocks(fmt, weight)
    tried = [[reference.candidate(fmt, block, ratio) for block in blocks] for ratio in (1.0, 0.6)]
    scale = torch.tensor([[float(each) for each, _ in row] for row in tried])
    zero_point = torch.tensor([[float(each) for _, each in row] for row in tried])
    if fmt.granularity == "tensor":
        weight = weight.view(1, -1)
    size = min(fmt.group_size or weight.shape[1], weight.shape[1])
    candidates = ClipCandidates(fmt.width, size, scale, None if fmt.symmetric else zero_point)
    found = summed_errors(weight, candidates, power)
    for row, errors in zip(tried, found, strict=True):
        for block, parameters, error in zip(blocks, row, errors.tolist(), strict=True):
            scale, zero_point = (each.double() for each in parameters)
            codes = reference.codes(fmt, block, parameters).double()
            distance = (codes - zero_point - block.double() / scale).abs()
            # Steps of float32 are off by 1e-5 of a step, each of up to 160 weights.
            assert error == pytest.approx(float(distance.pow(power).sum()), rel=1e-4, abs=2e-3)
