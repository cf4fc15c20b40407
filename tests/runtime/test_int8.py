import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mezzotint.formats import ActivationFormat, UniformFormat, from_bits
from mezzotint.runtime import QuantLayer
from mezzotint.runtime.int8 import Int8LinearKernel
from tests.runtime.layers import linear, noise, packed

WEIGHTS = tuple(
    f"{kind}{width}/{granularity}"
    for kind in ("int", "uint")
    for width in range(2, 9)
    for granularity in ("tensor", "channel")
)
EVERY_WEIGHT = pytest.mark.parametrize("weight", WEIGHTS)


def assert_exact(layer: QuantLayer, x: Tensor) -> None:
    """The kernel's output against sums in 64-bit integers, scaled in float64."""
    fmt, activation = layer.weight_format, layer.activation_format
    assert isinstance(fmt, UniformFormat)
    assert isinstance(activation, ActivationFormat)
    rows = x.reshape(-1, x.shape[-1])
    scale, zero = activation.dynamic_parameters(rows, (1,))
    inputs = activation.quantize(rows, scale, zero).long()
    tensors = layer.weight_tensors()
    zero_point = 2 ** (fmt.width - 1) if fmt.symmetric else tensors["zero_point"].long().view(-1, 1)
    codes = fmt.codes(tensors, layer.weight_shape).long() - zero_point
    steps = scale.double() * from_bits(tensors["scale"], fmt.scale_dtype).double().view(1, -1)
    bias = 0.0 if layer.bias is None else layer.bias.double()
    expected = (inputs @ codes.t()) * steps + bias
    magnitude = (inputs.abs() @ codes.abs().t()) * steps + abs(bias)
    output = Int8LinearKernel().run(layer, x)
    assert output.dtype == x.dtype
    assert output.shape == (*x.shape[:-1], layer.weight_shape[0])
    distance = (output.double().view(expected.shape) - expected).abs()
    # Only the few float32 operations after the sums may round.
    assert bool((distance <= 4 * torch.finfo(torch.float32).eps * magnitude).all())


@EVERY_WEIGHT
@settings(max_examples=20)
@given(
    inputs=st.integers(1, 70),
    outputs=st.integers(1, 20),
    leading=st.lists(st.integers(0, 4), max_size=3),
    width=st.integers(2, 8),
    seed=st.integers(0, 99),
)
def test_sums_are_exact_for_any_shape(
    weight: str, inputs: int, outputs: int, leading: list[int], width: int, seed: int
):
    layer = packed(linear(inputs, outputs), weight, f"int{width}/token")
    assert_exact(layer, noise(*leading, inputs, seed=seed))


@EVERY_WEIGHT
@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["all-positive", "all-negative"])
def test_sums_are_exact_with_the_zero_point_at_either_end(weight: str, sign: float):
    layer = linear(131, 9)
    layer.weight.data = sign * layer.weight.data.abs()
    assert_exact(packed(layer, weight, "int8/token"), noise(5, 131))
    assert_exact(packed(layer, weight, "int8/token"), noise(5, 131).abs())


@EVERY_WEIGHT
@pytest.mark.parametrize("inputs", [64, 4096])
def test_the_largest_products_do_not_saturate(weight: str, inputs: int):
    layer = nn.Linear(inputs, 8, bias=False)
    layer.weight.data.fill_(-1.0)
    layer.weight.data[::2] = 1.0
    x = torch.ones(4, inputs)
    x[1::2] = -1.0
    assert_exact(packed(layer, weight, "int8/token"), x)


@pytest.mark.parametrize("rows", [1, 2, 16, 17, 33])
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (7, 3), (8, 8), (65, 31), (768, 5)])
def test_sums_are_exact_around_block_sizes(rows: int, inputs: int, outputs: int):
    for weight in ("int4/channel", "uint8/channel"):
        layer = packed(linear(inputs, outputs), weight, "int8/token")
        assert_exact(layer, noise(rows, inputs))


def test_a_single_token_may_have_any_stride():
    # The stride of a dimension of size 1 is arbitrary, and torch's product trusts it.
    layer = packed(linear(), "int4/channel", "int8/token")
    assert_exact(layer, noise(19).as_strided((1, 19), (0, 1)))
    assert_exact(layer, noise(2, 19)[:, None].transpose(0, 1)[:, :1])


def test_a_dead_channel_gives_the_bias_alone():
    layer = linear(40, 6)
    layer.weight.data[3] = 0.0
    output = packed(layer, "uint4/channel", "int8/token")(noise(5, 40))
    assert torch.equal(output[:, 3], layer.bias[3].expand(5))


def test_strided_inputs_are_read_in_order():
    layer = packed(linear(), "int4/channel", "int8/token")
    x = noise(19, 6).t()
    kernel = Int8LinearKernel()
    assert torch.equal(kernel.run(layer, x), kernel.run(layer, x.contiguous()))
    x = noise(6, 38)[:, ::2]
    assert torch.equal(kernel.run(layer, x), kernel.run(layer, x.contiguous()))


def test_a_token_is_the_same_alone_and_in_a_batch():
    layer = packed(linear(), "int4/channel", "int8/token")
    x = noise(6, 19)
    kernel = Int8LinearKernel()
    assert torch.equal(kernel.run(layer, x)[2:3], kernel.run(layer, x[2:3]))
