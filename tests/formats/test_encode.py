"""`encode` against the definitions: every bit of what is stored."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mezzotint.formats import (
    MINMAX,
    MSE,
    CodebookFormat,
    MixedFormat,
    RangeSearch,
    UniformFormat,
    from_bits,
    parse_weight_format,
)
from tests.formats import reference
from tests.formats.strategies import SHAPES, WIDTHS, formats, normal, parsed, weights

SEARCHES = st.sampled_from([MINMAX, RangeSearch(5, 0.3), RangeSearch(4, 0.5, 2.4)])
CODEBOOKS = [CodebookFormat(width, g) for width in WIDTHS for g in ("tensor", "channel")]


def stored_parameters(fmt: UniformFormat, tensors: dict[str, Tensor]):
    """Scale and zero point of each block."""
    scales = from_bits(tensors["scale"], fmt.scale_dtype).flatten()
    zero_points = torch.full_like(scales, fmt.offset)
    if not fmt.symmetric:
        zero_points = tensors["zero_point"].flatten().float()
    return list(zip(scales, zero_points, strict=True))


def assert_nearest(fmt: UniformFormat, weight: Tensor, tensors: dict[str, Tensor]):
    """The stored codes are those of the stored scales."""
    stored = stored_parameters(fmt, tensors)
    parts = zip(reference.blocks(fmt, weight), stored, strict=True)
    codes = torch.cat([reference.codes(fmt, block, each) for block, each in parts])
    shape = tuple(weight.shape)
    assert torch.equal(codes.view(len(weight), -1), fmt.codes(tensors, shape))


@given(fmt=formats(), weight=weights())
def test_the_full_range_gives_scales_zero_points_and_codes(fmt: UniformFormat, weight: Tensor):
    tensors = fmt.encode(weight)
    blocks = reference.blocks(fmt, weight)
    stored = stored_parameters(fmt, tensors)
    assert stored == [reference.candidate(fmt, block, 1.0) for block in blocks]
    assert_nearest(fmt, weight, tensors)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_any_shape_and_dtype_is_encoded_so(shape: tuple[int, ...], dtype: torch.dtype):
    weight = normal(*shape).to(dtype)
    for name in ("int4/channel", "uint3/group8", "uint8/tensor", "int1/group8"):
        fmt = parsed(name)
        tensors = fmt.encode(weight)
        blocks = reference.blocks(fmt, weight)
        stored = stored_parameters(fmt, tensors)
        assert stored == [reference.candidate(fmt, block, 1.0) for block in blocks]
        assert_nearest(fmt, weight, tensors)


@given(fmt=formats(), weight=weights(limit=1e30), search=SEARCHES)
def test_a_search_stores_the_best_of_its_ranges(
    fmt: UniformFormat, weight: Tensor, search: RangeSearch
):
    tensors = fmt.encode(weight, search)
    assert_nearest(fmt, weight, tensors)
    stored = stored_parameters(fmt, tensors)
    for block, chosen in zip(reference.blocks(fmt, weight), stored, strict=True):
        tried = reference.candidates(fmt, block, search)
        assert chosen in tried
        errors = [reference.error(fmt, block, each, search.power) for each in tried]
        found = reference.error(fmt, block, chosen, search.power)
        # Float32 cannot tell errors apart that are this near.
        assert found <= min(errors) * (1 + 1e-4) + 1e-9


@given(fmt=st.sampled_from(CODEBOOKS), weight=weights(columns=20))
def test_codes_of_a_codebook_count_the_midpoints_below(fmt: CodebookFormat, weight: Tensor):
    tensors = fmt.encode(weight)
    expected = reference.indices(fmt.levels(tensors), weight)
    assert torch.equal(fmt.codes(tensors, tuple(weight.shape)), expected)


@pytest.mark.parametrize("name", ["mixed/int1:2,int4:3", "mixed/uint2:1,uint3:1,uint8:3"])
def test_a_mixture_stores_each_segment_as_its_own_format_does(name: str):
    fmt, weight = parse_weight_format(name), normal(5, 33)
    assert isinstance(fmt, MixedFormat)
    tensors = fmt.encode(weight, MSE)
    for index, rows in enumerate(weight.split(list(fmt.counts))):
        for part, tensor in fmt.formats[index].encode(rows, MSE).items():
            assert torch.equal(tensors[f"{part}{index}"], tensor)
