import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mezzotint.runtime import Linear, QuantLayer, Request
from mezzotint.runtime.cuda import FloatKernel, Int8Kernel, tuning
from mezzotint.runtime.cuda.kernel import LONGEST
from mezzotint.runtime.reference_kernel import ReferenceKernel
from tests.fuzzing import examples
from tests.runtime.cuda.exact import assert_close, assert_exact
from tests.runtime.layers import WEIGHTS, linear, noise, packed, run

CODEBOOKS = (*(f"kmeans{width}/channel" for width in range(1, 9)), "kmeans2/tensor")
MIXED = ("mixed/int2:3,int3:2,int8:2", "mixed/uint1:4,uint5:1,uint8:2", "mixed/kmeans1:4,uint2:3")
LOOKUPS = tuple(f"lut{width}/channel" for width in range(1, 7))
ACTIVATIONS = ("int8/token", "uint8/tensor", "int8/tensor", "uint8/token", "int4/token")
TWO_LEVELS = ("kmeans1/channel", "kmeans1/tensor")
INTEGERS = tuple(
    zip((*WEIGHTS, *MIXED, *LOOKUPS, *TWO_LEVELS), itertools.cycle(ACTIVATIONS), strict=False)
)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@pytest.mark.parametrize("weight", [*WEIGHTS, *CODEBOOKS, *MIXED, *LOOKUPS])
def test_every_format_by_floating_inputs(weight: str):
    # The last row, block and byte are ragged.
    assert_close(FloatKernel(), packed(linear(19, 7), weight), noise(17, 19))


@pytest.mark.parametrize(("weight", "activation"), INTEGERS)
def test_every_format_by_integer_inputs(weight: str, activation: str):
    assert_exact(Int8Kernel(), packed(linear(19, 7), weight, activation), noise(5, 19))


@examples(12)
@given(
    weight=st.sampled_from(
        [name for name in (*WEIGHTS, *CODEBOOKS, *LOOKUPS) if "group" not in name]
    ),
    dtype=st.sampled_from(DTYPES),
    inputs=st.integers(1, 150),
    outputs=st.integers(1, 40),
    leading=st.lists(st.integers(0, 4), max_size=3),
    bias=st.booleans(),
)
def test_any_shape_by_floating_inputs(
    weight: str,
    dtype: torch.dtype,
    inputs: int,
    outputs: int,
    leading: list[int],
    bias: bool,
):
    layer = packed(linear(inputs, outputs, bias), weight)
    assert_close(FloatKernel(), layer, noise(*leading, inputs).to(dtype))


@examples(12)
@given(
    weight=st.sampled_from((*WEIGHTS, *LOOKUPS, *TWO_LEVELS)),
    activation=st.sampled_from(ACTIVATIONS),
    inputs=st.integers(1, 150),
    outputs=st.integers(1, 40),
    leading=st.lists(st.integers(0, 4), max_size=3),
)
def test_any_shape_by_integer_inputs(
    weight: str, activation: str, inputs: int, outputs: int, leading: list[int]
):
    layer = packed(linear(inputs, outputs), weight, activation)
    assert_exact(Int8Kernel(), layer, noise(*leading, inputs))


@pytest.mark.parametrize("kind", ["int3", "uint8"])
@pytest.mark.parametrize("group", [5, 16, 32])
@pytest.mark.parametrize("inputs", [128, 256, 136, 70])
def test_groups_may_start_anywhere_in_a_block(kind: str, group: int, inputs: int):
    layer = linear(inputs, 3)
    weight = f"{kind}/group{group}"
    assert_close(FloatKernel(), packed(layer, weight), noise(2, inputs))
    assert_exact(Int8Kernel(), packed(layer, weight, "int8/token"), noise(2, inputs))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("weight", ["uint5/channel", "kmeans4/channel"])
def test_half_precision_goes_in_and_comes_out(weight: str, dtype: torch.dtype):
    layer = packed(linear(40, 20), weight)
    assert_close(FloatKernel(), layer, noise(3, 40).to(dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_integer_products_round_once_to_half_precision(dtype: torch.dtype):
    layer = packed(linear(40, 20), "int4/channel", "int8/token")
    eps = torch.finfo(dtype).eps
    assert_exact(Int8Kernel(), layer, noise(3, 40).to(dtype), eps=eps)


def test_double_precision_is_left_to_the_reference_kernel():
    layer = packed(linear(), "int4/channel")
    x = noise(3, 19).double()
    assert torch.equal(run(FloatKernel(), layer, x), run(ReferenceKernel(), layer, x))


@pytest.mark.parametrize("activation", ["int8/token", "uint8/token"])
@pytest.mark.parametrize("width", [1, 7, 8])
@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["all-positive", "all-negative"])
def test_sums_are_exact_with_the_zero_point_at_either_end(width: int, activation: str, sign: float):
    layer = linear(131, 9)
    layer.weight.data = sign * layer.weight.data.abs()
    layer = packed(layer, f"uint{width}/channel", activation)
    assert_exact(Int8Kernel(), layer, noise(3, 131))
    assert_exact(Int8Kernel(), layer, noise(3, 131).abs())
    assert_exact(Int8Kernel(), layer, -noise(3, 131).abs())


@pytest.mark.parametrize("activation", ["int8/token", "uint8/token"])
@pytest.mark.parametrize("weight", ["int8/channel", "uint8/channel", "uint8/group8192"])
def test_the_longest_sums_of_the_largest_products_fit(
    weight: str, activation: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tuning, "SMALL", {"BLOCK_N": 2, "BLOCK_M": 2, "BLOCK_K": 1024})
    layer = nn.Linear(LONGEST, 2, bias=False)
    layer.weight.data.fill_(-1.0)
    layer.weight.data[1] = 1.0
    x = torch.ones(2, LONGEST)
    x[1] = -1.0
    assert_exact(Int8Kernel(), packed(layer, weight, activation), x)


@pytest.mark.parametrize(("columns", "served"), [(LONGEST, True), (LONGEST + 1, False)])
def test_longer_sums_are_left_to_floating_point(columns: int, served: bool):
    layer = packed(linear(), "int4/channel", "int8/token")
    formats = layer.weight_format, layer.activation_format
    request = Request(Linear(), "cuda", formats[0], (7, columns), formats[1])
    why = Int8Kernel().unserved(request)
    assert (why is None) == served


@pytest.mark.parametrize("magnitude", [1e-30, 1e30])
@pytest.mark.parametrize("activation", ["float", "int8/token"])
def test_scales_may_be_extreme(magnitude: float, activation: str):
    layer = linear(19, 7, bias=False)
    layer.weight.data *= magnitude
    layer = packed(layer, "int4/channel", activation)
    if activation == "float":
        assert_close(FloatKernel(), layer, noise(3, 19))
    else:
        assert_exact(Int8Kernel(), layer, noise(3, 19))


def test_tokens_of_very_different_size_have_scales_of_their_own():
    x = noise(4, 19) * torch.tensor([[1e-30], [1.0], [1e30], [0.0]])
    assert_exact(Int8Kernel(), packed(linear(bias=False), "int4/channel", "int8/token"), x)


def test_a_dead_channel_gives_the_bias_alone():
    layer = linear(40, 6)
    layer.weight.data[3] = 0.0
    for activation in ("int8/token", "uint8/token"):
        output = run(Int8Kernel(), packed(layer, "uint4/channel", activation), noise(5, 40))
        assert torch.equal(output[:, 3], layer.bias[3].expand(5))


@pytest.fixture(params=["float", "int8/token"])
def served(request: pytest.FixtureRequest) -> tuple[FloatKernel | Int8Kernel, QuantLayer]:
    serving = FloatKernel() if request.param == "float" else Int8Kernel()
    return serving, packed(linear(), "int4/channel", request.param)


def test_strided_inputs_are_read_in_order(served: tuple[FloatKernel | Int8Kernel, QuantLayer]):
    serving, layer = served
    for x in (noise(19, 6).t(), noise(6, 38)[:, ::2], noise(19).as_strided((1, 19), (0, 1))):
        assert torch.equal(run(serving, layer, x), run(serving, layer, x.contiguous()))


def test_a_token_is_the_same_alone_and_in_a_batch(
    served: tuple[FloatKernel | Int8Kernel, QuantLayer],
):
    serving, layer = served
    x = noise(20, 19)
    assert torch.equal(run(serving, layer, x)[18:19], run(serving, layer, x[18:19]))


def test_nothing_of_the_layer_changes(served: tuple[FloatKernel | Int8Kernel, QuantLayer]):
    serving, layer = served
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    run(serving, layer, noise(3, 19))
    assert all(torch.equal(before[name], now) for name, now in layer.state_dict().items())


@pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")
@pytest.mark.parametrize("worst", [float("nan"), float("inf")])
def test_a_token_with_nan_or_infinity_is_lost_alone(worst: float):
    layer = packed(linear(), "int4/channel", "int8/token")
    x = noise(4, 19)
    expected = run(Int8Kernel(), layer, x)
    x[1, 3] = worst
    output = run(Int8Kernel(), layer, x)
    assert bool(output[1].isnan().all())
    assert torch.equal(output[[0, 2, 3]], expected[[0, 2, 3]])


@pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")
def test_nan_survives_a_calibrated_scale():
    layer = packed(linear(), "int4/channel", "uint8/tensor")
    x = noise(4, 19)
    expected = run(Int8Kernel(), layer, x)
    x[1, 3] = float("nan")
    assert bool(run(Int8Kernel(), layer, x)[1].isnan().all())
    x[1, 3] = noise(4, 19)[1, 3]
    assert torch.equal(run(Int8Kernel(), layer, x), expected)
