"""What kernels compute a weight from: runs of rows in plain formats, and where each row belongs."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import conv2d, linear

from mezzotint.formats import CodebookFormat, UniformFormat, WeightFormat, parse_weight_format
from tests.formats.strategies import NAMES, normal, weights

PLAIN = (*NAMES, *(f"kmeans{bits}/{g}" for bits in range(1, 9) for g in ("tensor", "channel")))
MIXED = ("mixed/int2:1,int3:2,int4:1", "mixed/uint1:3,uint8:1", "mixed/int1:1,int5:3")
ALL = ("int3/channel", "uint4/group8", "int8/tensor", "kmeans4/channel", "kmeans3/tensor", *MIXED)


def parsed(name: str) -> WeightFormat:
    found = parse_weight_format(name)
    assert found is not None
    return found


def ordered(fmt: WeightFormat, tensors: dict[str, Tensor], stored: Tensor, dim: int) -> Tensor:
    order = fmt.order(tensors)
    return stored if order is None else stored.index_select(dim, order)


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_format_is_one_segment_itself(name: str):
    fmt = parsed(name)
    tensors = fmt.encode(normal(4, 9))
    (segment,) = fmt.segments(tensors, (4, 9))
    assert (segment.format, segment.tensors, segment.shape) == (fmt, tensors, (4, 9))
    assert fmt.order(tensors) is None


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("shape", [(4, 9), (4, 3, 3, 3)], ids=str)
def test_segments_are_plain_and_hold_what_their_format_lays_out(name: str, shape: tuple[int, ...]):
    fmt = parsed(name)
    for segment in fmt.segments(fmt.encode(normal(*shape)), shape):
        assert isinstance(segment.format, UniformFormat | CodebookFormat)
        assert {n: (t.shape, t.dtype) for n, t in segment.tensors.items()} == {
            n: (spec.shape, spec.dtype) for n, spec in segment.format.layout(segment.shape).items()
        }
        segment.format.check(segment.tensors)


@pytest.mark.parametrize("name", ALL)
def test_segments_are_views_of_what_is_stored(name: str):
    fmt = parsed(name)
    tensors = fmt.encode(normal(4, 9))
    stored = {tensor.untyped_storage().data_ptr() for tensor in tensors.values()}
    for segment in fmt.segments(tensors, (4, 9)):
        assert {t.untyped_storage().data_ptr() for t in segment.tensors.values()} <= stored


@pytest.mark.parametrize("name", MIXED)
def test_a_mixture_has_a_segment_for_each_width(name: str):
    fmt = parsed(name)
    segments = fmt.segments(fmt.encode(normal(4, 3, 3, 3)), (4, 3, 3, 3))
    parts = [f"{s.format.name.partition('/')[0]}:{s.shape[0]}" for s in segments]
    assert "mixed/" + ",".join(parts) == name
    assert all(segment.shape[1:] == (3, 3, 3) for segment in segments)


@pytest.mark.parametrize("name", MIXED)
def test_the_order_is_int64_for_index_select(name: str):
    fmt = parsed(name)
    order = fmt.order(fmt.encode(normal(4, 9)))
    assert order is not None
    assert (order.dtype, order.sort().values.tolist()) == (torch.int64, [0, 1, 2, 3])


@given(name=st.sampled_from(ALL), weight=weights().filter(lambda drawn: len(drawn) == 4))
def test_segments_in_order_are_the_weight(name: str, weight: Tensor):
    fmt, shape = parsed(name), tuple(weight.shape)
    tensors = fmt.encode(weight)
    parts = [s.format.decode(s.tensors, s.shape) for s in fmt.segments(tensors, shape)]
    assert torch.equal(ordered(fmt, tensors, torch.cat(parts), 0), fmt.decode(tensors, shape))


@pytest.mark.parametrize("name", ALL)
def test_a_linear_layer_may_be_computed_segment_by_segment(name: str):
    fmt, x = parsed(name), normal(5, 9, seed=1)
    tensors = fmt.encode(normal(4, 9))
    parts = [linear(x, s.format.decode(s.tensors, s.shape)) for s in fmt.segments(tensors, (4, 9))]
    whole = linear(x, fmt.decode(tensors, (4, 9)))
    assert torch.allclose(ordered(fmt, tensors, torch.cat(parts, -1), -1), whole, atol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_a_convolution_may_be_computed_segment_by_segment(name: str):
    fmt, x, shape = parsed(name), normal(2, 3, 6, 6, seed=1), (4, 3, 3, 3)
    tensors = fmt.encode(normal(*shape))
    parts = [conv2d(x, s.format.decode(s.tensors, s.shape)) for s in fmt.segments(tensors, shape)]
    whole = conv2d(x, fmt.decode(tensors, shape))
    assert torch.allclose(ordered(fmt, tensors, torch.cat(parts, 1), 1), whole, atol=1e-5)
