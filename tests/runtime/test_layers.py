import copy
import io

import pytest
import torch
from torch import Tensor, nn

from mezzotint.errors import FormatError, PlanError
from mezzotint.formats import MSE, from_bits
from mezzotint.plan import Choice, Plan
from mezzotint.runtime import QuantConv2d, QuantLayer, QuantLinear, pack_layer, stored_tensors
from tests.runtime.layers import ACTIVATIONS, WEIGHTS, conv, linear, noise, packed

EVERY_WEIGHT = pytest.mark.parametrize("weight", WEIGHTS)
EVERY_ACTIVATION = pytest.mark.parametrize("activation", ACTIVATIONS)
EITHER_LAYER = pytest.mark.parametrize(
    ("layer", "x"),
    [(linear(), noise(2, 5, 19)), (conv(padding=1), noise(2, 4, 6, 6))],
    ids=["linear", "conv2d"],
)
SOME_CHOICES = pytest.mark.parametrize(
    ("weight", "activation"),
    [("int4/channel", "float"), ("uint3/group8", "uint8/tensor"), ("int8/channel", "int8/token")],
)


def reference(layer: QuantLayer, x: Tensor) -> Tensor:
    """Output of a float layer with the decoded weight, on the rounded input."""
    return layer.to_float()(layer.round_input(x))


def own_bytes(module: nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in module.state_dict().values())


class TestStorage:
    @EITHER_LAYER
    @EVERY_ACTIVATION
    @EVERY_WEIGHT
    def test_memory_holds_what_is_stored_and_the_bias(
        self, layer: nn.Module, x: Tensor, weight: str, activation: str
    ):
        quantized = packed(layer, weight, activation)
        choice = Choice(weight, activation)
        stored = stored_tensors(choice, tuple(layer.weight.shape))
        held = {name: (b.shape, b.dtype) for name, b in quantized.named_buffers()}
        assert held == {name: (spec.shape, spec.dtype) for name, spec in stored.items()}
        assert [name for name, _ in quantized.named_parameters()] == ["bias"]
        assert not any(b.is_floating_point() for b in quantized.buffers())
        stored_bytes = sum(spec.nbytes for spec in stored.values())
        assert own_bytes(quantized) == stored_bytes + 4 * len(layer.bias)

    @pytest.mark.parametrize("weight", ["int4/channel", "uint2/group8"])
    def test_weight_bytes_are_those_of_the_format(self, weight: str):
        quantized = packed(linear(bias=False), weight, "int8/token")
        assert own_bytes(quantized) == quantized.weight_format.stored_bytes((7, 19))

    def test_a_static_input_range_costs_a_scale_and_a_zero_point(self):
        dynamic, static = (
            packed(linear(), "int4/channel", name) for name in ("uint8/token", "uint8/tensor")
        )
        assert own_bytes(static) == own_bytes(dynamic) + 4 + 1

    def test_nothing_but_the_state_is_kept(self):
        quantized = packed(linear(), "int4/channel", "uint8/tensor")
        tensors = [v for v in vars(quantized).values() if isinstance(v, Tensor)]
        assert tensors == []
        assert set(quantized.state_dict()) == {
            *("weight_codes", "weight_scale", "input_scale", "input_zero_point", "bias")
        }

    def test_nothing_is_left_to_train(self):
        quantized = packed(linear(), "int4/channel")
        assert not any(p.requires_grad for p in quantized.parameters())

    def test_a_float_choice_has_no_packed_layer(self):
        with pytest.raises(PlanError, match="not replaced"):
            QuantLinear.like(linear(), Choice())

    def test_a_float_choice_stores_nothing(self):
        assert stored_tensors(Choice(), (7, 19)) == {}

    def test_a_static_format_without_a_range_is_refused(self):
        plan = Plan({"fc": Choice("int4/channel", "uint8/tensor")})
        with pytest.raises(FormatError, match="layer fc: uint8/tensor needs a calibrated input"):
            pack_layer("fc", linear(), plan)


class TestComputation:
    @EITHER_LAYER
    @EVERY_ACTIVATION
    @EVERY_WEIGHT
    def test_the_output_is_the_float_layer_s_on_rounded_operands(
        self, layer: nn.Module, x: Tensor, weight: str, activation: str
    ):
        quantized = packed(layer, weight, activation)
        assert torch.allclose(quantized(x), reference(quantized, x), rtol=1e-4, atol=1e-5)

    @EITHER_LAYER
    @EVERY_ACTIVATION
    @EVERY_WEIGHT
    def test_it_runs_in_bfloat16(self, layer: nn.Module, x: Tensor, weight: str, activation: str):
        quantized = packed(layer, weight, activation).to(torch.bfloat16)
        x = x.bfloat16()
        exact = quantized.to_float().float()(quantized.round_input(x).float())
        output = quantized(x)
        assert output.dtype == torch.bfloat16
        assert torch.allclose(
            output.float(), exact, rtol=0.02, atol=0.02 * float(exact.abs().max())
        )

    @EITHER_LAYER
    def test_eight_bits_come_close_to_the_float_layer(self, layer: nn.Module, x: Tensor):
        exact = layer(x).detach()
        output = packed(layer, "int8/channel", "int8/token", MSE)(x)
        assert float((output - exact).square().sum() / exact.square().sum()) < 1e-3

    @pytest.mark.parametrize("bias", [True, False])
    def test_the_bias_is_added_unrounded(self, bias: bool):
        layer = linear(bias=bias)
        zero = packed(layer, "int2/channel", "int8/token")(torch.zeros(3, 19))
        assert torch.equal(zero, layer(torch.zeros(3, 19)))

    @SOME_CHOICES
    @pytest.mark.parametrize("shape", [(19,), (1, 19), (0, 19), (2, 0, 19), (2, 3, 4, 19)], ids=str)
    def test_a_linear_takes_any_leading_dimensions(
        self, weight: str, activation: str, shape: tuple[int, ...]
    ):
        quantized = packed(linear(), weight, activation)
        x = noise(*shape)
        assert quantized(x).shape == (*shape[:-1], 7)
        assert torch.allclose(quantized(x), reference(quantized, x), rtol=1e-4, atol=1e-5)

    @SOME_CHOICES
    def test_a_convolution_takes_no_images_and_a_single_one(self, weight: str, activation: str):
        quantized = packed(conv(padding=1), weight, activation)
        assert quantized(noise(0, 4, 6, 6)).shape == (0, 6, 6, 6)
        x = noise(4, 6, 6)
        assert torch.allclose(quantized(x), quantized(x.unsqueeze(0))[0], atol=1e-6)

    @EITHER_LAYER
    @SOME_CHOICES
    def test_the_input_is_left_alone(
        self, layer: nn.Module, x: Tensor, weight: str, activation: str
    ):
        before = x.clone()
        packed(layer, weight, activation)(x)
        assert torch.equal(x, before)

    @pytest.mark.parametrize("activation", [a for a in ACTIVATIONS if a.endswith("token")])
    def test_a_token_does_not_see_the_others(self, activation: str):
        quantized = packed(linear(), "int4/channel", activation)
        x = noise(6, 19)
        alone = quantized(x[:1])
        x[1:] *= 1000
        assert torch.allclose(quantized(x)[:1], alone, atol=1e-5)

    @pytest.mark.parametrize("activation", ["float", "int8/token", "uint8/token"])
    def test_nan_in_the_input_does_not_disappear(self, activation: str):
        quantized = packed(linear(), "int4/channel", activation)
        x = noise(3, 19)
        x[1, 4] = torch.nan
        output = quantized(x)
        assert bool(output[1].isnan().all())
        assert bool(output[[0, 2]].isfinite().all())

    @pytest.mark.parametrize("columns", [18, 20, 38])
    @SOME_CHOICES
    def test_an_input_of_another_width_is_an_error(
        self, columns: int, weight: str, activation: str
    ):
        with pytest.raises(RuntimeError):
            packed(linear(), weight, activation)(noise(2, columns))


class TestGeometry:
    GEOMETRIES = (
        {"stride": 2},
        {"stride": (1, 2), "padding": (2, 0)},
        {"dilation": 2, "padding": 2},
        {"groups": 2},
        {"groups": 4, "outputs": 8},
        {"padding": "same"},
        {"padding": "same", "dilation": 2},
        {"padding": "valid"},
        {"kernel": 1},
        {"kernel": (1, 3)},
        {"bias": False},
    )

    @pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
    @pytest.mark.parametrize("activation", ["float", "int8/token"])
    def test_a_convolution_keeps_its_geometry(self, geometry: dict[str, object], activation: str):
        layer = conv(**geometry)
        x = noise(2, 4, 7, 9)
        quantized = packed(layer, "int8/channel", activation)
        exact = layer(x)
        assert quantized(x).shape == exact.shape
        assert torch.allclose(quantized(x), exact, atol=0.05)
        restored = quantized.to_float()
        kept = ("stride", "padding", "dilation", "groups", "kernel_size")
        assert [getattr(restored, k) for k in kept] == [getattr(layer, k) for k in kept]
        assert (restored.in_channels, restored.out_channels) == (4, layer.out_channels)

    @pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
    def test_other_padding_modes_are_refused_by_name(self, mode: str):
        layer = conv(padding=1, padding_mode=mode)
        with pytest.raises(PlanError, match=f"padding_mode '{mode}'"):
            QuantConv2d.like(layer, Choice("int4/channel"))

    def test_sizes_are_known_by_their_torch_names(self):
        quantized = packed(linear(19, 7), "int4/channel")
        assert (quantized.in_features, quantized.out_features) == (19, 7)
        quantized = packed(conv(8, 6, groups=2), "int4/channel")
        assert (quantized.in_channels, quantized.out_channels) == (8, 6)


class TestModuleBehaviour:
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
    @pytest.mark.parametrize("weight", ["uint3/channel", "int4/group8"])
    def test_casting_a_model_leaves_scales_bit_identical(self, dtype: torch.dtype, weight: str):
        quantized = packed(linear(), weight, "uint8/tensor")
        before = {name: b.clone() for name, b in quantized.named_buffers()}
        quantized.to(dtype)
        assert quantized.bias.dtype == dtype
        for name, buffer in quantized.named_buffers():
            assert buffer.dtype == before[name].dtype
            assert torch.equal(buffer, before[name])

    def test_half_and_bfloat16_methods_do_too(self):
        quantized = packed(linear(), "int4/channel")
        before = quantized.dequantized_weight()
        assert torch.equal(quantized.half().bfloat16().float().dequantized_weight(), before)

    @EITHER_LAYER
    @SOME_CHOICES
    def test_a_deep_copy_is_independent_and_equal(
        self, layer: nn.Module, x: Tensor, weight: str, activation: str
    ):
        quantized = packed(layer, weight, activation)
        expected = quantized(x)
        twin = copy.deepcopy(quantized)
        quantized.get_buffer("weight_codes").zero_()
        assert torch.equal(twin(x), expected)

    @EITHER_LAYER
    @SOME_CHOICES
    def test_the_state_fills_an_empty_layer(
        self, layer: nn.Module, x: Tensor, weight: str, activation: str
    ):
        quantized = packed(layer, weight, activation)
        empty = type(quantized).like(layer, quantized.choice)
        assert empty.load_state_dict(quantized.state_dict(), strict=True)
        assert torch.equal(empty(x), quantized(x))

    def test_the_state_of_another_shape_is_refused(self):
        with pytest.raises(RuntimeError, match="size mismatch"):
            packed(linear(), "int4/channel").load_state_dict(
                packed(linear(19, 8), "int4/channel").state_dict()
            )

    def test_a_whole_module_can_be_written_and_read_by_torch(self):
        quantized = packed(linear(), "int4/channel", "int8/token")
        x = noise(3, 19)
        expected = quantized(x)
        file = io.BytesIO()
        torch.save(quantized, file)
        file.seek(0)
        assert torch.equal(torch.load(file, weights_only=False)(x), expected)

    @pytest.mark.parametrize("training", [True, False])
    @EITHER_LAYER
    def test_training_mode_is_kept_both_ways(self, layer: nn.Module, x: Tensor, training: bool):
        quantized = packed(copy.deepcopy(layer).train(training), "int4/channel")
        assert quantized.training is training
        assert quantized.to_float().training is training

    @EITHER_LAYER
    def test_the_float_layer_is_a_stock_one_with_the_decoded_weight(
        self, layer: nn.Module, x: Tensor
    ):
        quantized = packed(layer, "uint4/group8", "int8/token")
        restored = quantized.to_float()
        assert type(restored) is type(layer)
        assert torch.equal(restored.weight, quantized.dequantized_weight())
        assert torch.equal(restored.bias, layer.bias)
        assert restored.weight.shape == layer.weight.shape

    def test_the_float_layer_takes_the_dtype_of_its_bias_or_the_one_asked_for(self):
        with_bias = packed(linear(), "int4/channel").to(torch.bfloat16)
        without = packed(linear(bias=False), "int4/channel").to(torch.bfloat16)
        assert with_bias.to_float().weight.dtype == torch.bfloat16
        assert without.to_float().weight.dtype == torch.float32
        assert without.to_float(torch.bfloat16).weight.dtype == torch.bfloat16

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
    def test_half_precision_weights_are_packed_like_their_float32_values(self, dtype: torch.dtype):
        layer = linear().to(dtype)
        quantized = packed(layer, "int4/channel")
        assert quantized.bias.dtype == dtype
        wide = packed(copy.deepcopy(layer).float(), "int4/channel")
        assert torch.equal(quantized.dequantized_weight(), wide.dequantized_weight())

    def test_an_empty_layer_can_stand_on_the_meta_device(self):
        with torch.device("meta"):
            layer = nn.Linear(19, 7)
        empty = QuantLinear.like(layer, Choice("uint4/channel", "uint8/tensor"))
        assert all(t.is_meta for t in empty.state_dict().values())

    def test_printing_shows_shape_and_choice(self):
        text = repr(nn.Sequential(packed(linear(), "int4/channel", "int8/token")))
        assert "(0): QuantLinear((7, 19), int4/channel × int8/token)" in text

    @pytest.mark.parametrize(
        ("weight", "dtype"),
        [("int4/channel", torch.bfloat16), ("int4/channel/float32", torch.float32)],
    )
    def test_scales_are_floating_values_kept_as_bits(self, weight: str, dtype: torch.dtype):
        quantized = packed(linear(), weight)
        scale = from_bits(quantized.weight_tensors()["scale"], dtype)
        expected = linear().weight.abs().amax(1, keepdim=True) / 7
        assert torch.equal(scale, expected.to(dtype).float())

    @EITHER_LAYER
    @SOME_CHOICES
    def test_it_compiles_to_one_graph(
        self, layer: nn.Module, x: Tensor, weight: str, activation: str
    ):
        quantized = packed(layer, weight, activation)
        torch._dynamo.reset()
        compiled = torch.compile(quantized, backend="eager", fullgraph=True)
        assert torch.equal(compiled(x), quantized(x))

    @SOME_CHOICES
    def test_a_convolution_of_a_single_image_compiles_too(self, weight: str, activation: str):
        quantized = packed(conv(padding=1), weight, activation)
        torch._dynamo.reset()
        compiled = torch.compile(quantized, backend="aot_eager", fullgraph=True)
        image = noise(4, 5, 5)
        assert torch.equal(compiled(image), quantized(image))


@pytest.mark.parametrize("activation", ["float", "int8/token"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
def test_inputs_of_integers_are_refused(activation: str, dtype: torch.dtype):
    for layer, shape in ((linear(), (3, 19)), (conv(), (1, 4, 5, 5))):
        x = torch.zeros(shape, dtype=dtype)
        with pytest.raises(RuntimeError):
            layer(x)
        with pytest.raises(RuntimeError, match=f"takes floating inputs, but got {dtype}"):
            packed(layer, "int8/channel", activation)(x)
