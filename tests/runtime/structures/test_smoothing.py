"""Layers whose input channels are scaled by powers of two before they are rounded."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mezzotint.errors import FormatError
from mezzotint.formats import MINMAX
from mezzotint.plan import Choice, Encoding, LayerShape, Plan
from mezzotint.runtime import (
    Calibration,
    ConstantTokens,
    InputRange,
    PackedLayer,
    Smoothing,
    SplitInput,
    StepScales,
    join_inputs,
    operation_of,
    pack_layer,
    part_inputs,
    quantizers,
    shape_of,
    stored_tensors,
)
from mezzotint.runtime.composition import join_weights, part_weights
from mezzotint.runtime.floating_parts import FloatingParts
from mezzotint.runtime.structures.smoothing import HIGHEST, powers_of_two, smoothing_exponent
from tests.fuzzing import examples
from tests.runtime.layers import ACTIVATIONS, conv, linear, noise
from tests.runtime.structured import assert_close, dtypes, sizes, weights

STRUCTURES = (Smoothing(),)
LAYERS = {
    "linear": (linear(8, 6), noise(3, 5, 8)),
    "conv2d": (conv(8, 6, padding=1), noise(2, 8, 5, 5)),
    "conv2d without a batch": (conv(8, 6, padding=1), noise(8, 5, 5)),
    "conv2d in groups": (conv(8, 6, padding=1, groups=2), noise(2, 8, 5, 5)),
    "depthwise conv2d": (conv(8, 16, padding=1, groups=8), noise(2, 8, 5, 5)),
}
EVERY_LAYER = pytest.mark.parametrize(("layer", "x"), LAYERS.values(), ids=LAYERS)
EXPONENT = torch.tensor([-14, -3, -1, 0, 1, 2, 5, 14], dtype=torch.int8)


def packed(
    layer: nn.Module, weight: str, activation: str, exponent: Tensor, *ranges: InputRange
) -> PackedLayer:
    plan = Plan({"0": Choice(weight, activation, STRUCTURES)}, encoding=Encoding(MINMAX))
    calibration = Calibration({"0": ranges}, {"0": {"exponent": exponent}})
    return pack_layer("0", layer, plan, calibration)


def outliers(x: Tensor, channel_dim: int) -> Tensor:
    """The same with one input channel 100 times as large."""
    x = x.clone()
    x.select(channel_dim, 3).mul_(100)
    return x


class TestPowers:
    def test_they_are_exact(self):
        exponents = range(-HIGHEST, HIGHEST + 1)
        found = powers_of_two(torch.tensor(exponents, dtype=torch.int8))
        assert found.tolist() == [2.0**e for e in exponents]

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
    def test_every_dtype_has_them(self, dtype: torch.dtype):
        found = powers_of_two(torch.arange(-HIGHEST, HIGHEST + 1, dtype=torch.int8))
        assert torch.equal(found.to(dtype).float(), found)

    @pytest.mark.parametrize(
        ("x", "weight", "exponent"),
        [
            (4.0, 1.0, 1),
            (1.0, 16.0, -2),
            (100.0, 1.0, 3),
            (1.0, 1.0, 0),
            (0.0, 1.0, 0),
            (1.0, 0.0, 0),
            (0.0, 0.0, 0),
            (float("inf"), 1.0, 0),
            (float("nan"), 1.0, 0),
            (1.0, float("inf"), 0),
            (1e30, 1e-30, HIGHEST),
            (1e-30, 1e30, -HIGHEST),
        ],
    )
    def test_they_make_the_peaks_of_channel_and_weight_alike(
        self, x: float, weight: float, exponent: int
    ):
        found = smoothing_exponent(torch.tensor([x]), torch.tensor([weight]))
        assert (found.dtype, found.tolist()) == (torch.int8, [exponent])


class TestFloatingLayer:
    @torch.no_grad()
    @EVERY_LAYER
    def test_it_computes_the_same(self, layer: nn.Linear | nn.Conv2d, x: Tensor):
        operation = operation_of(layer)
        parts = FloatingParts(
            STRUCTURES,
            shape_of(layer),
            {"exponent": EXPONENT},
            lambda index, x, weight, bias: operation.apply(x, weight, bias),
        )
        exact = layer(x)
        found = parts.forward(x, layer.weight, layer.bias)
        assert float((found - exact).norm() / exact.norm()) < 1e-5

    @EVERY_LAYER
    def test_weights_and_inputs_come_back_bit_for_bit(
        self, layer: nn.Linear | nn.Conv2d, x: Tensor
    ):
        shape, tensors = shape_of(layer), {"exponent": EXPONENT}
        weights = part_weights(layer.weight, STRUCTURES, shape, tensors)
        assert not torch.equal(weights[0], layer.weight)
        assert torch.equal(join_weights(weights, STRUCTURES, shape, tensors), layer.weight)
        inputs = part_inputs(x, STRUCTURES, shape, tensors)
        assert not torch.equal(inputs[0], x)
        assert torch.equal(join_inputs(x, inputs, STRUCTURES, shape, tensors), x)

    def test_weights_of_grouped_convolutions_follow_their_input_channels(self):
        layer = conv(8, 6, groups=2)
        (weight,) = part_weights(layer.weight, STRUCTURES, shape_of(layer), {"exponent": EXPONENT})
        factors = (weight / layer.weight)[:, :, 0, 0].log2().round()
        assert factors[:3].tolist() == [EXPONENT[:4].tolist()] * 3
        assert factors[3:].tolist() == [EXPONENT[4:].tolist()] * 3


class TestPackedLayer:
    @given(st.data(), weights, st.sampled_from(ACTIVATIONS), dtypes)
    @examples(40)
    def test_it_rounds_the_smoothed_weight_and_input(
        self, data: st.DataObject, weight: str, activation: str, dtype: torch.dtype
    ):
        channels, outputs = data.draw(sizes), data.draw(sizes)
        layer = linear(channels, outputs, data.draw(st.booleans())).to(dtype)
        powers = st.lists(st.integers(-3, 3), min_size=channels, max_size=channels)
        exponent = torch.tensor(data.draw(powers), dtype=torch.int8)
        found = packed(layer, weight, activation, exponent, InputRange(-4.0, 4.0))
        x = noise(data.draw(st.integers(0, 5)), channels).to(dtype)
        (part,) = found.parts
        rounded = part.round_input(x * exponent.float().neg().exp2().to(dtype)).float()
        decoded = part.packed_weight.dequantized(torch.float32)
        exact = nn.functional.linear(
            rounded, decoded, None if layer.bias is None else layer.bias.detach().float()
        )
        assert_close(found(x), exact)

    @torch.no_grad()
    @EVERY_LAYER
    @pytest.mark.parametrize("activation", ["int8/token", "uint8/token", "uint8/tensor"])
    def test_an_outlier_channel_costs_less(
        self, layer: nn.Linear | nn.Conv2d, x: Tensor, activation: str
    ):
        x = outliers(x, -1 if isinstance(layer, nn.Linear) else -3)
        exponent = torch.zeros(8, dtype=torch.int8)
        smooth = exponent.clone()
        smooth[3] = 4
        exact = layer(x)
        errors = []
        for each in (exponent, smooth):
            part = x / each.float().exp2().view(-1, *(1,) * (0 if x.shape[-1] == 8 else 2))
            seen = InputRange(float(part.min()), float(part.max()))
            found = packed(layer, "int8/channel", activation, each, seen)
            errors.append(float((found(x) - exact).norm()))
        assert errors[1] < 0.75 * errors[0]

    @EVERY_LAYER
    def test_it_dequantizes_to_a_stock_layer_without_exponents(
        self, layer: nn.Linear | nn.Conv2d, x: Tensor
    ):
        exponent = torch.tensor([0, 1, -1, 2, -2, 0, 1, 0], dtype=torch.int8)
        found = packed(layer, "int8/channel", "float", exponent)
        stock = found.to_float()
        assert type(stock) is type(layer)
        torch.testing.assert_close(stock(x), found(x), rtol=1e-4, atol=1e-5)

    def test_one_byte_is_stored_for_each_input_channel(self):
        for layer, _ in LAYERS.values():
            shape = shape_of(layer)
            smoothed, plain = (
                sum(
                    spec.nbytes
                    for spec in stored_tensors(
                        Choice("int4/channel", structures=structures), shape.weight, shape.groups
                    ).values()
                )
                for structures in (STRUCTURES, ())
            )
            assert smoothed - plain == 8

    @pytest.mark.parametrize("exponent", [HIGHEST + 1, -HIGHEST - 1, 127, -128])
    def test_an_exponent_that_no_calibration_finds_is_refused(self, exponent: int):
        values = torch.tensor([0] * 7 + [exponent], dtype=torch.int8)
        with pytest.raises(FormatError, match=r"layer 0: exponent holds values beyond 14"):
            packed(linear(8, 6), "int4/channel", "float", values)

    def test_without_exponents_it_is_refused(self):
        with pytest.raises(FormatError, match="layer 0: smoothing needs its calibrated exponent"):
            pack_layer("0", linear(), Plan({"0": Choice("int4/channel", structures=STRUCTURES)}))


class TestOrder:
    @pytest.mark.parametrize(
        ("inner", "remedy"),
        [(ConstantTokens(1), "put constant_tokens first"), (SplitInput(2), "put split first")],
        ids=["constant tokens", "split"],
    )
    def test_it_stands_within_what_divides_the_input(
        self, inner: ConstantTokens | SplitInput, remedy: str
    ):
        with pytest.raises(FormatError, match=f"smoothing cannot hold {inner.kind}: .*{remedy}"):
            Choice("int4/channel", "int8/token", (Smoothing(), inner))
        Choice("int4/channel", "int8/token", (inner, Smoothing()))

    def test_scales_of_steps_stand_within_it(self):
        steps = StepScales(3)
        Choice("int4/channel", "uint4/step", (Smoothing(), steps))
        with pytest.raises(FormatError, match=r"step_scales cannot hold smoothing: .*last"):
            Choice("int4/channel", "uint4/step", (steps, Smoothing()))

    def test_each_half_of_a_split_input_has_exponents_of_its_own(self):
        choice = Choice("int4/channel", structures=(SplitInput(3), Smoothing()))
        specs = stored_tensors(choice, (6, 8))
        assert specs["first.exponent"].shape == (3,)
        assert specs["second.exponent"].shape == (5,)
        assert [path for path, _ in quantizers(choice.structures, LayerShape((6, 8)))] == [
            "first.smoothed",
            "second.smoothed",
        ]
