"""Layers with constant tokens, and layers with a split input."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mezzotint.errors import FormatError, PlanError
from mezzotint.formats import MINMAX
from mezzotint.plan import Choice, Plan
from mezzotint.runtime import (
    ConstantTokens,
    InputRange,
    PackedLayer,
    Packing,
    QuantConv2d,
    QuantLinear,
    SplitLayer,
    check_plan,
    dequantize_module,
    empty_layer,
    executions,
    module_bytes,
    pack_layer,
    packed_layers,
    part_inputs,
    quantize_module,
    stored_tensors,
)
from tests.runtime.layers import ACTIVATIONS, conv, linear, noise

WIDTHS = range(1, 9)
RANGES = (InputRange(-4.0, 4.0), InputRange(-3.0, 2.0))

weights = st.builds(
    lambda kind, width, granularity: f"{kind}int{width}/{granularity}",
    st.sampled_from(["", "u"]),
    st.sampled_from(WIDTHS),
    st.sampled_from(["tensor", "channel", "group4"]),
)
activations = st.sampled_from(ACTIVATIONS)
dtypes = st.sampled_from([torch.float32, torch.bfloat16])
sizes = st.integers(1, 21)


def packed(layer: nn.Linear | nn.Conv2d, choice: Choice) -> Any:
    """`layer` packed alone; its constant output is drawn at random."""
    constant = noise(choice.constant_tokens, len(layer.weight), seed=3)
    ranges = RANGES[: choice.parts]
    return pack_layer("0", layer, choice, Packing(MINMAX, {"0": ranges}, {"0": constant}))


def reference(layer: PackedLayer, x: Tensor) -> Tensor:
    """The float computation on the decoded weight and the rounded parts of the input."""
    (part, *_), stock = layer.parts, layer.to_float()
    parts = part_inputs(x, layer.choice, part.operation)
    rounded = [part.round_input(x) for part, x in zip(layer.parts, parts, strict=True)]
    dim = -1 if part.operation == "linear" else -3
    return stock.float()(torch.cat(rounded, dim).float())


def assert_close(output: Tensor, exact: Tensor) -> None:
    loose = output.dtype == torch.bfloat16
    peak = float(exact.abs().max()) if exact.numel() else 0.0
    tolerance = (0.03 if loose else 1e-5) * max(peak, 1.0)
    assert torch.allclose(output.float(), exact, rtol=0.02 if loose else 1e-4, atol=tolerance)


TEXT = Choice("int4/channel", "int8/token", constant_tokens=1)
SPLIT = Choice("int4/channel", "int8/token", split=2)
TEXT_LAYER = (linear(), TEXT, noise(2, 5, 19))
SPLIT_LINEAR = (linear(), SPLIT, noise(2, 5, 19))
SPLIT_CONV = (conv(padding=1), SPLIT, noise(2, 4, 6, 6))
EVERY = pytest.mark.parametrize(
    ("layer", "choice", "x"),
    [TEXT_LAYER, SPLIT_LINEAR, SPLIT_CONV],
    ids=["constant tokens", "split linear", "split conv2d"],
)


class TestConstantTokens:
    @given(st.data(), weights, activations, dtypes)
    @settings(max_examples=60, deadline=None)
    def test_the_first_outputs_are_the_constant_and_the_others_the_quantized_layer_s(
        self, data: st.DataObject, weight: str, activation: str, dtype: torch.dtype
    ):
        inputs, outputs, count = data.draw(sizes), data.draw(sizes), data.draw(st.integers(1, 3))
        batch, others = data.draw(st.integers(0, 3)), data.draw(st.integers(0, 4))
        layer = linear(inputs, outputs, data.draw(st.booleans())).to(dtype)
        choice = Choice(weight, activation, constant_tokens=count)
        quantized = packed(layer, choice)
        x = noise(batch, count + others, inputs).to(dtype)
        output = quantized(x)
        assert (output.shape, output.dtype) == ((batch, count + others, outputs), dtype)
        constant = noise(count, outputs, seed=3).to(dtype)
        assert torch.equal(output[:, :count], constant.expand(batch, -1, -1))
        assert_close(output[:, count:], reference(quantized, x))

    def test_the_constant_holds_whatever_the_first_token_is(self):
        quantized, x = packed(linear(), TEXT), noise(2, 5, 19)
        expected = quantized(x)
        x[:, 0] *= 1000
        assert torch.equal(quantized(x), expected)

    def test_the_others_are_those_of_a_layer_without_constants(self):
        layer, x = linear(bias=False), noise(2, 5, 19)
        assert torch.equal(packed(layer, TEXT)(x)[:, 1:], packed(layer, TEXT.plain)(x[:, 1:]))

    def test_the_constant_is_stored_bit_for_bit(self):
        quantized = packed(linear(), TEXT)
        assert quantized.constant.dtype == torch.int32
        assert torch.equal(quantized.constant_output(), noise(1, 7, seed=3))

    def test_nothing_of_the_constant_given_is_shared(self):
        constant = noise(4, 7)
        packing = Packing(constants={"0": constant[:1]})
        quantized = pack_layer("0", linear(), TEXT, packing)
        constant.zero_()
        assert torch.equal(quantized.constant_output(), noise(4, 7)[:1])
        assert quantized.constant.untyped_storage().nbytes() == 7 * 4

    @pytest.mark.parametrize("shape", [(19,), (5, 19), (2, 0, 19), (1, 2, 3, 19)], ids=str)
    def test_an_input_without_those_tokens_is_refused(self, shape: tuple[int, ...]):
        with pytest.raises(PlanError, match=r"met a layer of constant tokens.*leave constant_tok"):
            packed(linear(), TEXT)(noise(*shape))

    def test_it_dequantizes_to_a_plain_linear(self):
        layer = linear()
        quantized = packed(layer, TEXT)
        restored = quantized.to_float()
        assert type(restored) is nn.Linear
        assert torch.equal(restored.weight, packed(layer, TEXT.plain).dequantized_weight())
        assert torch.equal(restored.bias, layer.bias)
        x = noise(2, 5, 19)
        assert not torch.allclose(restored(x)[:, :1], quantized(x)[:, :1])

    @pytest.mark.parametrize(
        ("constant", "complaint"),
        [
            (None, "constant_tokens 1 needs the layer's calibrated output"),
            (noise(7), r"needs an output of shape \(1, 7\), not \(7,\)"),
            (noise(2, 7), r"needs an output of shape \(1, 7\), not \(2, 7\)"),
            (torch.full((1, 7), torch.nan), "holds NaN or infinite"),
        ],
        ids=["absent", "flat", "too-many", "nan"],
    )
    def test_without_its_constant_the_layer_is_named_and_nothing_is_touched(
        self, constant: Tensor | None, complaint: str
    ):
        packing = Packing(constants={} if constant is None else {"1": constant})
        module = nn.Sequential(linear(19, 19), linear())
        plan = Plan({"0": TEXT.plain, "1": TEXT})
        with pytest.raises(FormatError, match=f"layer 1: .*{complaint}"):
            quantize_module(module, plan, packing)
        assert not packed_layers(module)

    def test_a_convolution_has_none(self):
        with pytest.raises(PlanError, match="layer 0: a convolution has no constant tokens"):
            check_plan(nn.Sequential(conv()), Plan({"0": TEXT}))


class TestSplit:
    @given(st.data(), weights, activations, dtypes)
    @settings(max_examples=40, deadline=None)
    def test_a_linear_is_the_sum_of_its_halves(
        self, data: st.DataObject, weight: str, activation: str, dtype: torch.dtype
    ):
        inputs, outputs = data.draw(st.integers(2, 21)), data.draw(sizes)
        choice = Choice(weight, activation, split=data.draw(st.integers(1, inputs - 1)))
        layer = linear(inputs, outputs, data.draw(st.booleans())).to(dtype)
        quantized = packed(layer, choice)
        shape = (*data.draw(st.lists(st.integers(0, 3), max_size=2)), inputs)
        x = noise(*shape).to(dtype)
        output = quantized(x)
        assert (output.shape, output.dtype) == ((*shape[:-1], outputs), dtype)
        assert_close(output, reference(quantized, x))

    @given(st.data(), weights, activations, dtypes)
    @settings(max_examples=40, deadline=None)
    def test_a_convolution_is_the_sum_of_its_halves(
        self, data: st.DataObject, weight: str, activation: str, dtype: torch.dtype
    ):
        inputs, outputs = data.draw(st.integers(2, 6)), data.draw(st.integers(1, 5))
        choice = Choice(weight, activation, split=data.draw(st.integers(1, inputs - 1)))
        geometry = data.draw(
            st.sampled_from([{"kernel": 1}, {"padding": 1}, {"stride": 2}, {"padding": "same"}])
        )
        layer = conv(inputs, outputs, bias=data.draw(st.booleans()), **geometry).to(dtype)
        quantized = packed(layer, choice)
        x = noise(data.draw(st.integers(0, 2)), inputs, 5, 7).to(dtype)
        output = quantized(x)
        assert (output.shape, output.dtype) == (layer(x).shape, dtype)
        assert_close(output, reference(quantized, x))

    @pytest.mark.parametrize("layer", [linear(4, 7), conv()], ids=["linear", "conv2d"])
    def test_each_half_has_its_own_scale(self, layer: nn.Linear | nn.Conv2d):
        layer = copy.deepcopy(layer)
        layer.weight.data[:, 2:] *= 100
        weight = layer.weight.detach()
        whole, split = packed(layer, SPLIT.plain), packed(layer, SPLIT)
        errors = [
            float((each.dequantized_weight()[:, :2] - weight[:, :2]).square().sum())
            for each in (whole, split)
        ]
        assert errors[1] < errors[0] / 100

    def test_each_half_has_its_own_input_range(self):
        quantized = packed(linear(), Choice("int8/channel", "uint8/tensor", split=9))
        first, second = (part.round_input(torch.tensor([9.0, -9.0])) for part in quantized.parts)
        assert first.tolist() == pytest.approx([4.0, -4.0], abs=0.05)
        assert second.tolist() == pytest.approx([2.0, -3.0], abs=0.05)

    @pytest.mark.parametrize("given", [(), RANGES[:1], (*RANGES, RANGES[0])], ids=len)
    def test_a_static_format_needs_a_range_for_each_half(self, given: tuple[InputRange, ...]):
        choice = Choice("int8/channel", "uint8/tensor", split=9)
        with pytest.raises(FormatError, match=r"layer 0: uint8/tensor needs .* its 2 parts"):
            pack_layer("0", linear(), choice, Packing(input_ranges={"0": given}))

    @pytest.mark.parametrize("layer", [linear(4, 7), conv()], ids=["linear", "conv2d"])
    @pytest.mark.parametrize("split", [4, 5, 1000])
    def test_a_split_outside_the_channels_is_refused(self, layer: nn.Module, split: int):
        plan = Plan({"0": Choice("int4/channel", split=split)})
        with pytest.raises(PlanError, match=f"layer 0: split is {split}, but there are 4 input"):
            check_plan(nn.Sequential(layer), plan)

    def test_a_convolution_in_groups_is_refused(self):
        with pytest.raises(PlanError, match="layer 0: a convolution of 2 groups cannot be split"):
            check_plan(nn.Sequential(conv(groups=2)), Plan({"0": SPLIT}))

    def test_another_padding_mode_is_refused_as_ever(self):
        odd = nn.Sequential(conv(padding=1, padding_mode="reflect"))
        with pytest.raises(PlanError, match=r"layer 0: padding_mode 'reflect'.*choose 'float'"):
            check_plan(odd, Plan({"0": SPLIT}))

    @pytest.mark.parametrize("columns", [1, 18, 20])
    def test_an_input_of_another_width_is_an_error(self, columns: int):
        with pytest.raises(RuntimeError):
            packed(linear(), SPLIT)(noise(3, columns))

    @pytest.mark.parametrize("layer", [linear(), conv(padding=1, stride=2)], ids=type)
    def test_it_dequantizes_to_one_stock_layer(self, layer: nn.Module):
        restored = packed(layer, SPLIT).to_float()
        assert type(restored) is type(layer)
        assert repr(restored) == repr(layer)
        assert torch.equal(restored.bias, layer.bias)
        halves = [
            SPLIT.plain.weight_format.roundtrip(half)
            for half in layer.weight.detach().split((2, layer.weight.shape[1] - 2), 1)
        ]
        assert torch.equal(restored.weight, torch.cat(halves, 1))


class TestStorage:
    @EVERY
    @pytest.mark.parametrize("weight", [f"uint{width}/group4" for width in WIDTHS])
    @pytest.mark.parametrize("activation", ["float", "uint8/tensor"])
    def test_memory_holds_what_is_stored_and_the_bias(
        self, layer: nn.Module, choice: Choice, x: Tensor, weight: str, activation: str
    ):
        structure = {"constant_tokens": choice.constant_tokens, "split": choice.split}
        choice = Choice(weight, activation, **structure)
        quantized = packed(layer, choice)
        stored = stored_tensors(choice, tuple(layer.weight.shape))
        held = {name: (b.shape, b.dtype) for name, b in quantized.named_buffers()}
        assert held == {name: (spec.shape, spec.dtype) for name, spec in stored.items()}
        assert [name for name, _ in quantized.named_parameters()] == ["bias"]
        total = sum(spec.nbytes for spec in stored.values())
        assert module_bytes(quantized) == total + 4 * len(layer.bias)

    def test_a_constant_costs_a_float_per_output(self):
        extra = module_bytes(packed(linear(), TEXT)) - module_bytes(packed(linear(), TEXT.plain))
        assert extra == 4 * 7

    def test_a_split_costs_a_scale_per_output(self):
        layer = linear(18)
        extra = module_bytes(packed(layer, SPLIT)) - module_bytes(packed(layer, SPLIT.plain))
        assert extra == 4 * 7

    @EVERY
    def test_the_empty_layer_has_its_place_for_every_tensor(
        self, layer: nn.Module, choice: Choice, x: Tensor
    ):
        quantized, empty = packed(layer, choice), empty_layer("0", layer, choice)
        assert not torch.equal(empty(x), quantized(x))
        empty.load_state_dict(quantized.state_dict(), strict=True)
        assert torch.equal(empty(x), quantized(x))

    @EVERY
    def test_it_can_stand_on_the_meta_device(self, layer: nn.Module, choice: Choice, x: Tensor):
        hollow = copy.deepcopy(layer).to("meta")
        empty = empty_layer("0", hollow, choice)
        assert empty.state_dict().keys() == packed(layer, choice).state_dict().keys()
        assert all(tensor.is_meta for tensor in empty.state_dict().values())


class TestModuleBehaviour:
    @EVERY
    def test_it_is_one_layer_of_its_model(self, layer: nn.Module, choice: Choice, x: Tensor):
        module = nn.Sequential(packed(layer, choice))
        assert list(packed_layers(module)) == ["0"]
        (told,) = executions(module)
        assert (told.layer, told.choice) == ("0", choice)
        assert told.kernel == module[0].parts[0].selection.kernel.name
        assert str(choice) in repr(module)
        dequantize_module(module)
        assert not packed_layers(module)

    @EVERY
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
    def test_casting_leaves_what_is_stored_alone(
        self, layer: nn.Module, choice: Choice, x: Tensor, dtype: torch.dtype
    ):
        quantized = packed(layer, choice)
        before = {name: b.clone() for name, b in quantized.named_buffers()}
        quantized.to(dtype)
        assert quantized.bias.dtype == dtype
        assert all(torch.equal(b, before[name]) for name, b in quantized.named_buffers())
        assert quantized(x.to(dtype)).dtype == dtype

    @EVERY
    def test_a_deep_copy_is_independent_and_equal(
        self, layer: nn.Module, choice: Choice, x: Tensor
    ):
        quantized = packed(layer, choice)
        expected, twin = quantized(x), copy.deepcopy(quantized)
        for buffer in quantized.buffers():
            buffer.zero_()
        assert torch.equal(twin(x), expected)

    @EVERY
    @pytest.mark.parametrize("training", [True, False])
    def test_training_mode_is_kept_both_ways(
        self, layer: nn.Module, choice: Choice, x: Tensor, training: bool
    ):
        quantized = packed(copy.deepcopy(layer).train(training), choice)
        assert quantized.training is training
        assert quantized.to_float().training is training

    @EVERY
    def test_it_compiles_to_one_graph(self, layer: nn.Module, choice: Choice, x: Tensor):
        quantized = packed(layer, choice)
        torch._dynamo.reset()
        compiled = torch.compile(quantized, backend="eager", fullgraph=True)
        assert torch.equal(compiled(x), quantized(x))

    def test_its_parts_are_plain_layers(self):
        kinds = [
            [type(part) for part in packed(layer, choice).parts]
            for layer, choice, _ in (TEXT_LAYER, SPLIT_LINEAR, SPLIT_CONV)
        ]
        assert kinds == [[QuantLinear], [QuantLinear] * 2, [QuantConv2d] * 2]
        assert isinstance(packed(linear(), TEXT), ConstantTokens)
        assert isinstance(packed(linear(), SPLIT), SplitLayer)


class TestPackLayer:
    @pytest.mark.parametrize("choice", [TEXT, SPLIT, TEXT.plain], ids=str)
    def test_it_is_what_quantizing_a_model_puts_in(self, choice: Choice):
        packing = Packing(constants={"0": noise(1, 7)})
        module = quantize_module(nn.Sequential(linear()), Plan({"0": choice}), packing)
        alone = pack_layer("0", linear(), choice, packing)
        assert type(alone) is type(module[0])
        x = noise(2, 5, 19)
        assert torch.equal(alone(x), module(x))

    def test_the_float_layer_is_left_alone(self):
        layer = linear()
        before = copy.deepcopy(layer.state_dict())
        pack_layer("0", layer, TEXT.plain).bias.data.zero_()
        assert all(torch.equal(layer.state_dict()[name], before[name]) for name in before)

    @pytest.mark.parametrize("value", [torch.nan, torch.inf])
    def test_a_weight_with_nan_names_the_layer(self, value: float):
        layer = linear()
        layer.weight.data[0, 0] = value
        with pytest.raises(FormatError, match="layer mid: the weight holds NaN or infinite"):
            pack_layer("mid", layer, SPLIT)
