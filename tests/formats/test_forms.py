"""Canonical forms that kernels compute a weight from: runs of rows, and where each row belongs."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import conv2d, linear

from mezzotint.formats import (
    MINMAX,
    AffineSegment,
    LookupSegment,
    MixedFormat,
    Segment,
    UniformFormat,
    WeightFormat,
    pack,
    parse_weight_format,
)
from tests.formats.strategies import NAMES, normal, value_of, weights

CODEBOOKS = tuple(f"kmeans{bits}/{g}" for bits in range(1, 9) for g in ("tensor", "channel"))
MIXED = (
    "mixed/int2:1,int3:2,int4:1",
    "mixed/uint1:3,uint8:1",
    "mixed/int1:1,int5:3",
    "mixed/kmeans1:2,uint2:1,uint3:1",
    "mixed/lut1:1,lut4:3",
)
ALL = ("int3/channel", "uint4/group8", "int8/tensor", "kmeans4/channel", "lut3/channel", *MIXED)


def parsed(name: str) -> WeightFormat:
    found = parse_weight_format(name)
    assert found is not None
    return found


def ordered(fmt: WeightFormat, tensors: dict[str, Tensor], stored: Tensor, dim: int) -> Tensor:
    order = fmt.order(tensors)
    return stored if order is None else stored.index_select(dim, order)


def tensors_of(segment: Segment) -> dict[str, Tensor]:
    return {name: value for name, value in vars(segment).items() if isinstance(value, Tensor)}


@pytest.mark.parametrize("name", NAMES)
def test_a_uniform_format_is_one_affine_segment(name: str):
    fmt = parsed(name)
    tensors = fmt.encode(normal(4, 19), MINMAX)
    (segment,) = fmt.segments(tensors, (4, 19))
    assert isinstance(segment, AffineSegment)
    assert (segment.shape, segment.bits) == ((4, 19), fmt.bits)
    assert segment.group_size == (8 if name.endswith("group8") else None)
    assert (segment.zero_point is None) == name.startswith("int")
    assert fmt.order(tensors) is None


@pytest.mark.parametrize("name", CODEBOOKS)
def test_a_codebook_is_one_lookup_segment(name: str):
    fmt = parsed(name)
    tensors = fmt.encode(normal(4, 9), MINMAX)
    (segment,) = fmt.segments(tensors, (4, 9))
    assert isinstance(segment, LookupSegment)
    assert (segment.shape, segment.bits, segment.scale) == ((4, 9), fmt.bits, None)
    assert segment.levels.shape == (4 if name.endswith("channel") else 1, 2**fmt.bits)
    assert fmt.order(tensors) is None


@pytest.mark.parametrize("bits", range(1, 7))
def test_a_lookup_format_is_one_segment_of_integers_that_are_scaled(bits: int):
    fmt = parsed(f"lut{bits}/channel")
    (segment,) = fmt.segments(fmt.encode(normal(4, 9), MINMAX), (4, 9))
    assert isinstance(segment, LookupSegment)
    assert (segment.levels.shape, segment.levels.dtype) == ((1, 2**bits), torch.int8)
    assert segment.scale is not None
    assert (segment.scale.shape, segment.scale.dtype) == ((4, 1), torch.bfloat16)


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("int3/channel", 3),
        ("uint8/tensor", 8),
        ("lut2/channel", 8),
        ("int3/group4", None),
        ("kmeans3/channel", None),
        ("kmeans1/channel", 1),
        ("kmeans1/tensor", 1),
    ],
)
def test_a_segment_knows_whether_its_rows_are_multiples_of_integers(name: str, bits: int | None):
    (form,) = parsed(name).forms((4, 9))
    assert form.integer_bits == bits


@pytest.mark.parametrize("name", MIXED)
def test_a_mixture_has_a_segment_for_each_width(name: str):
    fmt = parsed(name)
    assert isinstance(fmt, MixedFormat)
    segments = fmt.segments(fmt.encode(normal(4, 3, 3, 3), MINMAX), (4, 3, 3, 3))
    assert tuple(segment.bits for segment in segments) == fmt.widths
    assert tuple(segment.shape for segment in segments) == tuple((n, 3, 3, 3) for n in fmt.counts)
    for segment, own in zip(segments, fmt.formats, strict=True):
        assert isinstance(segment, AffineSegment) == isinstance(own, UniformFormat)


@pytest.mark.parametrize("low", [-3.0, 0.0, 2.0**127])
def test_two_levels_lie_on_a_line(low: float):
    levels = torch.tensor([[low, low], [-low, low]], dtype=torch.bfloat16)
    middle, half = LookupSegment((2, 1), 1, torch.zeros(2, 1, dtype=torch.uint8), levels).line
    assert torch.equal(torch.cat([middle - half, middle + half], 1), levels.float())


@pytest.mark.parametrize("name", ALL)
def test_segments_are_views_of_what_is_stored(name: str):
    fmt = parsed(name)
    tensors = fmt.encode(normal(4, 9), MINMAX)
    stored = {tensor.untyped_storage().data_ptr() for tensor in tensors.values()}
    for segment in fmt.segments(tensors, (4, 9)):
        for part in (segment, segment.rows(slice(0, 1))):
            views = tensors_of(part).values()
            assert {view.untyped_storage().data_ptr() for view in views} <= stored


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("shape", [(4, 9), (4, 3, 3, 3)], ids=str)
def test_forms_are_known_without_a_weight(name: str, shape: tuple[int, ...]):
    fmt = parsed(name)
    segments = fmt.segments(fmt.encode(normal(*shape), MINMAX), shape)
    for form, segment in zip(fmt.forms(shape), segments, strict=True):
        assert type(form) is type(segment)
        assert (form.shape, form.bits) == (segment.shape, segment.bits)
        described, stored = tensors_of(form), tensors_of(segment)
        assert {n: (t.shape, t.dtype) for n, t in described.items()} == {
            n: (t.shape, t.dtype) for n, t in stored.items()
        }
        assert all(tensor.is_meta for tensor in described.values())


@pytest.mark.parametrize("name", MIXED)
def test_the_order_is_int64_for_index_select(name: str):
    fmt = parsed(name)
    order = fmt.order(fmt.encode(normal(4, 9), MINMAX))
    assert order is not None
    assert (order.dtype, order.sort().values.tolist()) == (torch.int64, [0, 1, 2, 3])


@given(name=st.sampled_from(ALL), weight=weights(rows=4, least_rows=4))
def test_segments_in_order_are_the_weight(name: str, weight: Tensor):
    fmt, shape = parsed(name), tuple(weight.shape)
    tensors = fmt.encode(weight, MINMAX)
    stored = torch.cat([value_of(segment) for segment in fmt.segments(tensors, shape)])
    expected = ordered(fmt, tensors, stored, 0).float()
    assert torch.equal(expected, fmt.decode(tensors, shape))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("rows", [slice(0, 1), slice(1, 3), slice(0, 99)], ids=str)
def test_some_rows_of_a_segment_are_a_segment(name: str, rows: slice):
    fmt = parsed(name)
    for segment in fmt.segments(fmt.encode(normal(4, 3, 3, 3), MINMAX), (4, 3, 3, 3)):
        part = segment.rows(rows)
        assert part.shape == (len(range(*rows.indices(segment.shape[0]))), 3, 3, 3)
        assert torch.equal(value_of(part), value_of(segment)[rows])


@pytest.mark.parametrize("rows", [1, 3])
def test_a_table_may_have_a_scale_for_each_row(rows: int):
    codes = torch.tensor([[0, 1, 2, 3, 2]] * rows, dtype=torch.uint8)
    levels, scale = torch.tensor([[-1.0, 0.0, 1.0, 1.0]]), torch.arange(1.0, rows + 1).view(-1, 1)
    segment = LookupSegment((rows, 5), 2, pack(codes, 2), levels, scale)
    expected = scale * torch.tensor([-1.0, 0.0, 1.0, 1.0, 1.0])
    assert torch.equal(segment.grid.values(segment.unpacked()), expected)


@pytest.mark.parametrize("name", ALL)
def test_a_linear_layer_may_be_computed_segment_by_segment(name: str):
    fmt, x = parsed(name), normal(5, 9, seed=1)
    tensors = fmt.encode(normal(4, 9), MINMAX)
    parts = [linear(x, value_of(s).float()) for s in fmt.segments(tensors, (4, 9))]
    whole = linear(x, fmt.decode(tensors, (4, 9)))
    assert torch.allclose(ordered(fmt, tensors, torch.cat(parts, -1), -1), whole, atol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_a_convolution_may_be_computed_segment_by_segment(name: str):
    fmt, x, shape = parsed(name), normal(2, 3, 6, 6, seed=1), (4, 3, 3, 3)
    tensors = fmt.encode(normal(*shape), MINMAX)
    parts = [conv2d(x, value_of(s).float().view(s.shape)) for s in fmt.segments(tensors, shape)]
    whole = conv2d(x, fmt.decode(tensors, shape))
    assert torch.allclose(ordered(fmt, tensors, torch.cat(parts, 1), 1), whole, atol=1e-5)
