import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mezzotint.errors import UsageError
from mezzotint.formats import LookupSegment
from mezzotint.runtime import InputRange, QuantLayer, QuantLinear
from mezzotint.runtime.cpu import ONEDNN, OWN, int8_onednn, native, processor, tiles
from mezzotint.runtime.kernels import Kernel
from mezzotint.runtime.reference_kernel import ReferenceKernel
from tests.fuzzing import examples
from tests.runtime.layers import conv, linear, noise, packed, run

pytestmark = pytest.mark.usefixtures("either_product")

WEIGHTS = (
    *(
        f"{kind}{width}/{granularity}"
        for kind in ("int", "uint")
        for width in range(1, 9)
        for granularity in ("tensor", "channel")
    ),
    *(f"lut{width}/channel" for width in range(1, 7)),
    "uint4/channel/float32",
)
EVERY_WEIGHT = pytest.mark.parametrize("weight", WEIGHTS)


def assert_exact(layer: QuantLayer, x: Tensor) -> None:
    """The layer's output against sums of exact integers, scaled in float64."""
    quantizer = layer.input_quantizer
    assert quantizer is not None
    activation = quantizer.format
    scale, zero = quantizer.parameters(x, layer.operation)
    codes = activation.quantize(x, scale, zero)
    inputs = (codes - zero).double()
    stored, shift, steps = halves(layer)
    # Whole numbers below 2^53: float64 adds them exactly.
    sums = product(layer, inputs, (stored - shift).view(layer.weight_shape))
    sizes = (stored.abs() + shift.abs()).view(layer.weight_shape)
    reach = inputs.abs()
    if not activation.symmetric and not activation.static and isinstance(layer, QuantLinear):
        # oneDNN multiplies codes less the middle; zero points of rows are taken off the products.
        reach = (codes - 128).abs().double() + (zero - 128).abs()
    magnitudes = product(layer, reach, sizes)
    shape = (-1, *(1,) * (-layer.channel_dim - 1))
    step = scale.double() * steps.double().view(shape) / 2
    bias = torch.zeros(1) if layer.bias is None else layer.bias.double().view(shape)
    output = layer(x)
    assert output.dtype == x.dtype
    assert output.shape == sums.shape
    distance = (output.double() - (sums * step + bias)).abs()
    # Only what comes after the sums may round; without VNNI the sums of the widest, too.
    exact = layer.selection.kernel.arithmetic == "int8"
    roundings = 4 + (0 if exact else math.prod(layer.weight_shape[1:]))
    bound = roundings * torch.finfo(torch.float32).eps * (magnitudes * step + bias.abs())
    assert bool((distance <= bound).all())


def halves(layer: QuantLayer) -> tuple[Tensor, Tensor, Tensor]:
    """A weight's integers and zero points, doubled for those of one bit, and its scale."""
    (segment,) = layer.packed_weight.segments
    assert segment.scale is not None
    if isinstance(segment, LookupSegment):
        levels = segment.levels.double().view(-1)[segment.unpacked().long()]
        return 2 * levels, torch.zeros(1), segment.scale
    middle = 2.0**segment.bits if segment.bits > 1 else 1.0
    zero_point = segment.zero_point
    twice = 2 * segment.offset if zero_point is None else 2 * zero_point.double().view(-1, 1)
    return 2 * segment.unpacked().double() - middle, torch.as_tensor(twice - middle), segment.scale


def product(layer: QuantLayer, x: Tensor, weight: Tensor) -> Tensor:
    return layer.operation.apply(x, weight, None)


@pytest.fixture
def kernel(either_product: str) -> Kernel:
    return OWN if either_product == "own" else ONEDNN


@EVERY_WEIGHT
@examples(20)
@given(
    inputs=st.integers(1, 70),
    outputs=st.integers(1, 20),
    leading=st.lists(st.integers(0, 4), max_size=3),
    activation=st.tuples(st.sampled_from(["int", "uint"]), st.integers(2, 8)),
    seed=st.integers(0, 99),
)
def test_sums_are_exact_for_any_shape(
    weight: str,
    inputs: int,
    outputs: int,
    leading: list[int],
    activation: tuple[str, int],
    seed: int,
):
    kind, width = activation
    layer = packed(linear(inputs, outputs), weight, f"{kind}{width}/token")
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
    assert_exact(packed(layer, weight, "uint8/token"), x.clamp(min=0))


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


def test_strided_inputs_are_read_in_order(kernel: Kernel):
    layer = packed(linear(), "int4/channel", "int8/token")
    x = noise(19, 6).t()
    assert torch.equal(run(kernel, layer, x), run(kernel, layer, x.contiguous()))
    x = noise(6, 38)[:, ::2]
    assert torch.equal(run(kernel, layer, x), run(kernel, layer, x.contiguous()))


def test_a_token_is_the_same_alone_and_in_a_batch(kernel: Kernel):
    layer = packed(linear(), "int4/channel", "int8/token")
    x = noise(6, 19)
    assert torch.equal(run(kernel, layer, x)[2:3], run(kernel, layer, x[2:3]))


CONVOLUTIONS = {
    "plain": {},
    "padded": {"padding": 1},
    "strided": {"stride": 2, "padding": (0, 2)},
    "dilated": {"dilation": 2, "padding": 2},
    "same": {"padding": "same"},
    "valid": {"padding": "valid"},
}


@pytest.mark.parametrize("geometry", CONVOLUTIONS.values(), ids=CONVOLUTIONS.keys())
@pytest.mark.parametrize(
    "activation", ["int8/token", "uint8/tensor", "int8/tensor", "int3/token", "uint8/token"]
)
@pytest.mark.parametrize(
    "weight", ["int8/channel", "uint4/channel", "int1/tensor", "uint1/channel", "lut3/channel"]
)
@pytest.mark.parametrize("outputs", [7, 300], ids=["few-outputs", "few-pixels"])
@pytest.mark.usefixtures("either_way")
def test_convolutions_are_exact_and_padding_is_zero(
    weight: str, activation: str, geometry: dict[str, object], outputs: int
):
    layer = packed(conv(5, outputs, **geometry), weight, activation)
    assert_exact(layer, noise(2, 5, 9, 8))
    assert_exact(layer, noise(1, 5, 9, 8).contiguous(memory_format=torch.channels_last))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("kernel", [1, 2, (1, 4), (5, 2)], ids=str)
def test_even_kernels_are_padded_to_the_same_size(kernel: int):
    layer = packed(conv(3, 4, kernel, padding="same"), "uint5/channel", "uint8/tensor")
    assert_exact(layer, noise(2, 3, 7, 6))


@examples(25)
@given(
    channels=st.integers(1, 70),
    outputs=st.integers(1, 20),
    size=st.tuples(st.integers(0, 2), st.integers(3, 9), st.integers(3, 70)),
    seed=st.integers(0, 99),
)
def test_convolutions_are_exact_for_any_shape(
    channels: int, outputs: int, size: tuple[int, int, int], seed: int
):
    count, height, width = size
    layer = packed(conv(channels, outputs, 3, padding=1), "uint4/channel", "int8/token")
    assert_exact(layer, noise(count, channels, height, width, seed=seed))


@pytest.mark.parametrize("groups", [2, 6])
def test_channels_in_groups_stay_apart(groups: int):
    layer = packed(conv(6, 12, 3, groups=groups), "int7/channel", "int8/token")
    assert_exact(layer, noise(2, 6, 5, 5))


@pytest.mark.parametrize(("low", "high"), [(0.0, 3.0), (-3.0, 0.0), (-1e-3, 5.0)], ids=str)
def test_static_inputs_may_have_their_zero_point_at_either_end(low: float, high: float):
    for layer, x in ((linear(), noise(4, 19)), (conv(padding=1), noise(2, 4, 5, 5))):
        found = packed(layer, "uint8/channel", "uint8/tensor", ranges=InputRange(low, high))
        assert_exact(found, 3 * x)


@pytest.mark.parametrize("magnitude", [1e-30, 1e-3, 1e30])
@pytest.mark.usefixtures("either_way")
def test_dynamic_scales_reach_from_the_tiny_to_the_huge(magnitude: float):
    assert_exact(packed(linear(), "int8/channel", "int8/token"), magnitude * noise(4, 19))


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("activation", ["int8/token", "uint8/token", "uint8/tensor"])
def test_what_is_not_a_number_spoils_its_own_token_only(activation: str, bad: float):
    layer = packed(linear(), "int4/channel", activation)
    x = noise(3, 19)
    clean = layer(x)
    x[1, 2] = bad
    spoilt = layer(x)
    assert torch.allclose(spoilt[::2], clean[::2], rtol=1e-5)
    # A static range clips infinity, as the reference does.
    assert bool(spoilt[1].isnan().all()) == (activation != "uint8/tensor" or bad != bad)


@pytest.mark.usefixtures("either_way")
def test_an_image_that_is_not_all_numbers_spoils_itself_only():
    layer = packed(conv(padding=1), "uint4/channel", "uint8/token")
    x = noise(3, 4, 6, 6)
    clean = layer(x)
    x[1, 2, 3, 3] = torch.nan
    spoilt = layer(x)
    assert torch.equal(spoilt[::2], clean[::2])
    assert bool(spoilt[1].isnan().all())


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("offset", [-5.0, 0.0, 5.0], ids=["negative", "centred", "positive"])
def test_each_row_and_image_has_a_zero_point_of_its_own(offset: float):
    rows = noise(5, 19) + offset * torch.arange(5).view(-1, 1)
    assert_exact(packed(linear(), "uint4/channel", "uint8/token"), rows)
    images = noise(3, 4, 6, 6) + offset * torch.arange(3).view(-1, 1, 1, 1)
    assert_exact(packed(conv(padding=1), "uint4/channel", "uint8/token"), images)


def test_asymmetric_tokens_are_the_same_alone_and_in_a_batch(kernel: Kernel):
    layer, x = packed(linear(), "lut4/channel", "uint8/token"), noise(6, 19)
    assert torch.equal(run(kernel, layer, x)[2:3], run(kernel, layer, x[2:3]))


@pytest.mark.parametrize("weight", ["lut4/channel", "mixed/uint2:30,uint7:37"])
def test_asymmetric_images_are_the_same_alone_and_in_a_batch(weight: str, kernel: Kernel):
    layer, x = packed(conv(4, 67, padding=1), weight, "uint8/token"), noise(3, 4, 6, 6)
    assert torch.equal(run(kernel, layer, x)[1:2], run(kernel, layer, x[1:2]))


@pytest.mark.skipif(not processor.ONEDNN, reason="needs the 8-bit products of oneDNN")
def test_a_batch_of_asymmetric_images_unpacks_the_weight_once(monkeypatch: pytest.MonkeyPatch):
    layer, unpacked = packed(conv(padding=1), "uint4/channel", "uint8/token"), []
    found = int8_onednn.integers
    monkeypatch.setattr(
        int8_onednn, "integers", lambda tile: unpacked.append(tile.start) or found(tile)
    )
    run(ONEDNN, layer, noise(5, 4, 6, 6))
    assert unpacked == [0]


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("weight", [name for name in WEIGHTS if name.startswith("lut")])
@pytest.mark.parametrize("activation", ["int8/token", "uint8/token", "uint8/tensor"])
def test_lookup_weights_agree_with_the_reference(weight: str, activation: str, kernel: Kernel):
    for layer, x in ((linear(67, 70), noise(4, 67)), (conv(5, 9, padding=1), noise(2, 5, 6, 6))):
        found = packed(layer, weight, activation)
        assert found.selection.kernel.arithmetic == "int8" or not processor.VNNI
        expected = run(ReferenceKernel(), found, x)
        assert torch.allclose(run(kernel, found, x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs_are_coded_as_their_float32_values(dtype: torch.dtype):
    for layer, x in ((linear(), noise(4, 19)), (conv(padding=1), noise(2, 4, 5, 5))):
        for activation in ("int8/token", "uint8/token"):
            found, half = packed(layer, "int4/channel", activation), x.to(dtype)
            assert torch.equal(found(half), found(half.float()).to(dtype))


@pytest.mark.parametrize("vnni", [True, False])
@pytest.mark.parametrize("layer", [linear(), conv(padding=1)], ids=["linear", "conv2d"])
def test_narrow_products_are_exact_on_every_processor(
    layer: nn.Module, vnni: bool, monkeypatch: pytest.MonkeyPatch
):
    # Seven bits by eight fit where two products are added in 16 bits.
    monkeypatch.setattr(processor, "VNNI", vnni)
    x = noise(4, 19) if isinstance(layer, nn.Linear) else noise(2, 4, 5, 5)
    assert_exact(packed(layer, "int8/channel", "int7/token"), x)
    assert_exact(packed(layer, "int7/channel", "int8/token"), x)
    # However few codes there are, their levels have eight bits.
    assert_exact(packed(layer, "lut2/channel", "int8/token"), x)


@pytest.mark.parametrize("layer", [linear(), conv(padding=1)], ids=["linear", "conv2d"])
def test_the_widest_products_do_not_saturate_without_vnni(
    layer: nn.Module, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(processor, "VNNI", False)
    layer = copy.deepcopy(layer)
    layer.weight.data = layer.weight.data.sign()
    x = noise(4, 19) if isinstance(layer, nn.Linear) else noise(2, 4, 5, 5)
    assert_exact(packed(layer, "int8/channel", "int8/token"), x.sign())


@pytest.mark.parametrize(
    "weight", ["int4/channel", "uint7/channel", "lut5/channel", "mixed/int2:30,int7:37"]
)
def test_tiles_make_no_difference(weight: str, monkeypatch: pytest.MonkeyPatch):
    for layer, x in ((linear(19, 67), noise(4, 19)), (conv(4, 67), noise(2, 4, 5, 5))):
        found = packed(layer, weight, "int8/token")
        whole = found(x)
        monkeypatch.setattr(tiles, "TILE_BYTES", 1)
        assert torch.equal(found(x), whole)
        monkeypatch.undo()


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("activation", ["int8/token", "uint8/tensor"])
@pytest.mark.parametrize(
    "weight",
    [
        "mixed/int1:3,int4:2,int7:2",
        "mixed/uint2:1,uint3:6",
        "mixed/kmeans1:3,uint2:2,uint3:2",
        "mixed/kmeans1:6,int8:1",
        "mixed/lut1:2,lut4:5",
    ],
)
@pytest.mark.parametrize(
    ("layer", "x"),
    [(linear(), noise(2, 5, 19)), (conv(4, 7, padding=1), noise(2, 4, 6, 6))],
    ids=["linear", "conv2d"],
)
def test_several_widths_in_one_layer_come_out_in_the_layer_s_own_order(
    layer: nn.Module, x: Tensor, weight: str, activation: str, kernel: Kernel
):
    found = packed(layer, weight, activation)
    expected = found.to_float()(found.round_input(x))
    assert torch.allclose(run(kernel, found, x), expected, atol=1e-5)


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("weight", ["kmeans1/channel", "kmeans1/tensor"])
@pytest.mark.parametrize(
    ("layer", "x"),
    [(linear(), noise(2, 5, 19)), (conv(4, 7, padding=1), noise(2, 4, 6, 6))],
    ids=["linear", "conv2d"],
)
def test_products_with_two_levels_are_sums_of_whole_numbers(
    layer: nn.Module, x: Tensor, weight: str, kernel: Kernel
):
    layer = copy.deepcopy(layer)
    # A channel whose levels are the same, levels about zero, levels to one side of it.
    levels = [(3.0, 3.0), (-1.0, 1.0), (2.0, 10.0), (-8.0, 0.0), (0.0, 0.0)]
    for row, (low, high) in zip(layer.weight.data, levels, strict=False):
        row.copy_(torch.where(row > 0, high, low))
    layer.weight.data[len(levels) :].sign_()
    if weight.endswith("tensor"):
        layer.weight.data = torch.where(layer.weight.data > 0, 6.0, -2.0)
    layer.bias.data.zero_()
    x = (x * 16).round().clamp(-127, 127) / 16
    x.view(len(x), -1)[:, 0] = 127 / 16
    found = packed(layer, weight, "int8/tensor", ranges=InputRange(-127 / 16, 127 / 16))
    assert run(kernel, found, x).equal(layer(x))


def test_one_and_many_threads_agree():
    layer = packed(linear(512, 600), "uint3/channel", "int8/token")
    x = noise(700, 512)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = layer(x)
        torch.set_num_threads(3)
        assert torch.equal(layer(x), alone)
    finally:
        torch.set_num_threads(threads)


def test_the_c_functions_were_built_and_are_used():
    assert native.available()


@pytest.mark.parametrize(
    "view",
    [
        noise(1, 1, 8, 8).expand(1, 4, 8, 8),
        noise(1, 8, 8, 8)[:, ::2],
        noise(1, 4, 8, 8)[..., :3],
        noise(8, 8, 4).permute(2, 0, 1)[None],
        torch._neg_view(noise(1, 4, 8, 8)),
    ],
    ids=["expanded", "every-second-channel", "narrow", "permuted", "negative"],
)
@pytest.mark.usefixtures("either_way")
def test_views_are_read_in_order(view: Tensor, kernel: Kernel):
    layer = packed(conv(4, 6, padding=1), "uint7/channel", "int8/token")
    assert torch.equal(run(kernel, layer, view), run(kernel, layer, view.clone().contiguous()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_default_dtype_does_not_matter(dtype: torch.dtype):
    layers = [packed(linear(bias=False), "uint4/channel", "int8/token")]
    layers.append(packed(conv(padding=1), "uint4/channel", "int8/token"))
    inputs = noise(3, 19), noise(2, 4, 6, 6)
    expected = [layer(x) for layer, x in zip(layers, inputs, strict=True)]
    try:
        torch.set_default_dtype(dtype)
        found = [layer(x) for layer, x in zip(layers, inputs, strict=True)]
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(one, two) for one, two in zip(found, expected, strict=True))


def test_autocast_does_not_matter():
    layer, x = packed(conv(32, 6, padding=1), "uint4/channel", "int8/token"), noise(2, 32, 6, 6)
    expected = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x), expected)


@pytest.mark.parametrize("activation", ["float", "int8/token"])
def test_a_weight_elsewhere_is_an_error_not_a_crash(activation: str):
    layer = packed(linear(), "int4/channel", activation).to("meta")
    with pytest.raises(UsageError, match="weight on meta"):
        layer(noise(3, 19))


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (linear(), noise(3, 18)),
        (conv(), noise(2, 5, 6, 6)),
        (conv(), noise(2, 4, 2, 2)),
        (conv(), noise(4, 4)),
    ],
    ids=["features", "channels", "too-small", "two-dimensions"],
)
def test_inputs_that_do_not_fit_are_torch_s_own_errors(layer: nn.Module, x: Tensor):
    with pytest.raises(RuntimeError, match=r"shape|channels|size|dtype|input"):
        packed(layer, "int4/channel", "int8/token")(x)
