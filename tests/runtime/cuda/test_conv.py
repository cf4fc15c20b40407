import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mezzotint.runtime import QuantConv2d
from mezzotint.runtime.cuda import FloatKernel, Int8Kernel
from tests.fuzzing import examples
from tests.runtime.cuda.exact import assert_close, assert_exact
from tests.runtime.layers import conv, noise, packed, run

#: Of 8 channels and more the kernel walks the taps one by one; of fewer, position by position.
CHANNELS = (1, 3, 8, 16)

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")


@st.composite
def geometries(draw):
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    stride = draw(st.sampled_from([1, 2, (2, 1)]))
    padding = draw(st.sampled_from([0, 1, (1, 0), "valid", "same"]))
    if padding == "same":
        stride = 1
    dilation = draw(st.sampled_from([1, 2]))
    return kernel, {"stride": stride, "padding": padding, "dilation": dilation}


@examples(10)
@given(
    inputs=st.sampled_from(CHANNELS),
    geometry=geometries(),
    weight=st.sampled_from(
        ["int3/channel", "uint5/group8", "kmeans4/channel", "int8/tensor", "lut4/channel"]
    ),
)
def test_any_geometry_by_floating_inputs(inputs: int, geometry: tuple, weight: str):
    kernel, options = geometry
    layer = packed(nn.Conv2d(inputs, 5, kernel, **options), weight)
    assert_close(FloatKernel(), layer, noise(2, inputs, 5, 6))


@examples(14)
@given(
    inputs=st.sampled_from(CHANNELS),
    geometry=geometries(),
    weight=st.sampled_from(
        ["int4/channel", "uint8/channel", "uint8/group8", "int1/tensor", "lut3/channel"]
    ),
    activation=st.sampled_from(["int8/token", "uint8/tensor", "uint8/token"]),
)
def test_any_geometry_by_integer_inputs(inputs: int, geometry: tuple, weight: str, activation: str):
    kernel, options = geometry
    layer = packed(nn.Conv2d(inputs, 5, kernel, **options), weight, activation)
    assert_exact(Int8Kernel(), layer, noise(2, inputs, 5, 6))


@pytest.mark.parametrize("groups", [2, 4, 8])
@pytest.mark.parametrize("activation", ["float", "uint8/tensor"])
def test_channels_in_groups(groups: int, activation: str):
    layer = packed(conv(8, 16, 3, padding=1, groups=groups), "uint4/channel", activation)
    x = noise(1, 8, 4, 4)
    if activation == "float":
        assert_close(FloatKernel(), layer, x)
    else:
        assert_exact(Int8Kernel(), layer, x)


@pytest.mark.parametrize("inputs", [3, 8])
def test_padding_is_exactly_zero_where_zero_is_not_the_lowest_code(inputs: int):
    # All inputs are above zero: a padding of code 0 instead of the zero point would show.
    layer = packed(conv(inputs, 5, 3, padding=1), "uint8/channel", "uint8/tensor")
    assert_exact(Int8Kernel(), layer, noise(1, inputs, 3, 3).abs() + 1)


@pytest.mark.parametrize("activation", ["float", "int8/token"])
def test_mixed_weights_write_their_own_channels(activation: str):
    layer = packed(conv(8, 9, 1), "mixed/int2:4,int4:3,int8:2", activation)
    x = noise(2, 8, 3, 3)
    if activation == "float":
        assert_close(FloatKernel(), layer, x)
    else:
        assert_exact(Int8Kernel(), layer, x)


@pytest.mark.parametrize("kernel", [FloatKernel(), Int8Kernel()], ids=lambda each: each.name)
def test_layouts_of_the_input_make_no_difference(kernel: FloatKernel | Int8Kernel):
    layer = packed(conv(8, 5, 1), "int4/channel", "int8/token")
    x = noise(2, 8, 3, 4)
    expected = run(kernel, layer, x)
    assert expected.is_contiguous(memory_format=torch.channels_last)
    last = x.contiguous(memory_format=torch.channels_last)
    assert torch.equal(run(kernel, layer, last), expected)
    assert torch.equal(run(kernel, layer, noise(2, 8, 3, 8)[..., ::2].copy_(x)), expected)


@pytest.mark.parametrize("kernel", [FloatKernel(), Int8Kernel()], ids=lambda each: each.name)
def test_no_images_give_no_images(kernel: FloatKernel | Int8Kernel):
    layer = packed(conv(8, 5, 3), "int4/channel", "int8/token")
    assert run(kernel, layer, noise(0, 8, 6, 7)).shape == (0, 5, 4, 5)


def test_an_image_is_the_same_alone_and_in_a_batch():
    layer = packed(conv(8, 5, 1), "int4/channel", "int8/token")
    assert isinstance(layer, QuantConv2d)
    x = noise(3, 8, 3, 3) * torch.tensor([1e-3, 1.0, 1e3]).view(3, 1, 1, 1)
    kernel = Int8Kernel()
    assert torch.equal(run(kernel, layer, x)[1:2], run(kernel, layer, x[1:2]))
