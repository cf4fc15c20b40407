"""Inputs of 16, 8 and 6 bits: what each layer computes, and what it says that it does."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from diffusers import UNet2DConditionModel
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mezzotint.errors import FormatError, PlanError
from mezzotint.formats import parse_activation_format
from mezzotint.plan import Choice, Plan, uniform_plan
from mezzotint.runtime import (
    InputQuantizer,
    Linear,
    executions,
    operation_of,
    packed_copy,
)
from tests.fuzzing import examples
from tests.models import tiny
from tests.runtime.layers import conv, linear, noise, packed

A16, A8, A6 = "float", "uint8/token", "uint6/token"
SIMULATED = "uint8/channel/simulated"
UAQ, CODEBOOK = "uint3/channel", "kmeans3/channel"

PRODUCTS = {
    (UAQ, A16): "float",
    (UAQ, A8): "int8",
    (UAQ, A6): "6-bit inputs in 8-bit products",
    (CODEBOOK, A16): "float",
    (CODEBOOK, A8): "float, inputs rounded to uint8/token",
    (CODEBOOK, A6): "float, inputs rounded to uint6/token",
}


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    return tiny.smallest_unet().eval()


@torch.no_grad()
def output(unet: UNet2DConditionModel, *choices: Choice) -> tuple[Tensor, nn.Module]:
    """What a copy puts out whose layers have the choices in turn, and that copy."""
    names = uniform_plan(unet, weight_bits=4)
    plan = Plan(dict(zip(names, itertools.cycle(choices), strict=False)))
    made = packed_copy(unet, plan)
    text = noise(2, 5, tiny.TEXT_WIDTH, seed=1)
    return made(noise(2, 4, 8, 8), 500, encoder_hidden_states=text).sample, made


class TestWholeModel:
    @pytest.mark.parametrize("weight", [UAQ, CODEBOOK])
    def test_each_width_of_inputs_puts_out_something_else(
        self, unet: UNet2DConditionModel, weight: str
    ):
        exact, eight, six = (output(unet, Choice(weight, each))[0] for each in (A16, A8, A6))
        errors = [float((each - exact).norm() / exact.norm()) for each in (eight, six)]
        assert 0 < 2 * errors[0] < errors[1] < 0.5

    def test_every_layer_reports_its_own(self, unet: UNet2DConditionModel):
        choices = [Choice(*formats) for formats in PRODUCTS]
        _, made = output(unet, *choices)
        told = executions(made)
        assert {row.choice for row in told} == set(choices)
        for row in told:
            assert row.products == PRODUCTS[row.choice.weight, row.choice.activation]

    def test_convolutions_alone_may_be_simulated(self, unet: UNet2DConditionModel):
        names = uniform_plan(unet, weight_bits=4)
        choices = {
            name: Choice(UAQ, SIMULATED if type(unet.get_submodule(name)) is nn.Conv2d else A8)
            for name in names
        }
        for row in executions(packed_copy(unet, Plan(choices))):
            simulated = choices[row.layer].activation == SIMULATED
            assert ("simulated" in row.products) == simulated
            assert row.arithmetic == ("float" if simulated else "int8")


class TestProducts:
    @pytest.mark.parametrize("activation", ["int8/token", A8, "int6/token", A6])
    @pytest.mark.parametrize(
        ("layer", "x"),
        [(linear(), noise(2, 5, 19)), (conv(padding=1), noise(3, 4, 6, 6))],
        ids=["per token", "per image"],
    )
    @pytest.mark.parametrize("weight", [UAQ, "uint4/channel", CODEBOOK, "kmeans4/tensor"])
    def test_they_are_of_rounded_inputs(
        self, weight: str, layer: nn.Module, x: Tensor, activation: str
    ):
        quantized = packed(layer, weight, activation)
        exact = quantized.to_float().double()(quantized.round_input(x).double())
        torch.testing.assert_close(quantized(x).double(), exact, rtol=1e-4, atol=1e-5)
        uniform = weight.startswith("uint")
        assert quantized.selection.kernel.arithmetic == ("int8" if uniform else "float")


class TestSimulated:
    """A scale for each channel of each image, as no product of integers has it."""

    FORMAT = parse_activation_format(SIMULATED)

    @given(
        st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 6), st.integers(1, 6)),
        st.sampled_from([f"{kind}{bits}" for kind in ("int", "uint") for bits in range(2, 9)]),
        st.integers(0, 99),
    )
    @examples(60)
    def test_a_channel_of_an_image_is_rounded_as_if_alone(
        self, shape: tuple[int, ...], codes: str, seed: int
    ):
        simulated, static = (
            parse_activation_format(f"{codes}/{each}") for each in ("channel/simulated", "tensor")
        )
        assert simulated is not None
        assert static is not None
        images, channels = torch.arange(shape[0]), torch.arange(shape[1])
        spread = 10.0 ** (images.view(-1, 1, 1, 1) - channels.view(-1, 1, 1))
        x = noise(*shape, seed=seed) * spread
        found = InputQuantizer(simulated).rounded(x, operation_of(conv(padding=1)))
        for image, channel in itertools.product(images.tolist(), channels.tolist()):
            one = x[image, channel]
            scale, zero = static.parameters(one.amin().view(1), one.amax().view(1))
            assert torch.equal(found[image, channel], static.roundtrip(one, scale, zero))

    def test_plans_say_so_in_print(self):
        assert SIMULATED in str(Plan({"conv_in": Choice(UAQ, SIMULATED)}))

    def test_the_name_says_so_and_is_read_again(self):
        assert self.FORMAT is not None
        assert (self.FORMAT.name, self.FORMAT.simulated) == (SIMULATED, True)
        assert self.FORMAT.dynamic
        assert not self.FORMAT.static
        assert not parse_activation_format(A8).simulated

    @pytest.mark.parametrize(
        "name", ["uint8/channel", "uint8/simulated", "uint9/channel/simulated"]
    )
    def test_other_names_are_unknown(self, name: str):
        with pytest.raises(FormatError, match="activation format"):
            parse_activation_format(name)

    def test_a_layer_with_channels_of_different_size_is_closer_than_per_image(self):
        layer, x = conv(padding=1, bias=False), noise(2, 4, 6, 6)
        x[:, 0] *= 1000
        layer.weight.data[:, 0] *= 1e-3
        outputs = {each: packed(layer, "uint8/channel", each)(x) for each in (A16, A8, SIMULATED)}
        errors = [float((outputs[each] - outputs[A16]).norm()) for each in (A8, SIMULATED)]
        assert errors[1] < errors[0] / 10

    def test_no_kernel_of_integers_takes_it_and_the_report_says_why(self):
        module = nn.Sequential(conv(padding=1))
        made = packed_copy(module, Plan({"0": Choice(UAQ, SIMULATED)}))
        (row,) = executions(made)
        assert (row.arithmetic, row.products) == ("float", f"float, inputs rounded to {SIMULATED}")
        assert row.kernel == "cpu-float"
        assert f"{SIMULATED} varies along the sum, which no integers can compute" in row.reason

    def test_the_kernels_agree_on_it(self):
        layer = packed(conv(padding=1, stride=2), CODEBOOK, SIMULATED)
        x = noise(2, 4, 7, 6)
        exact = layer.to_float()(layer.round_input(x))
        torch.testing.assert_close(layer(x), exact, rtol=1e-4, atol=1e-5)

    def test_a_linear_has_no_such_scales(self):
        plan = Plan({"0": Choice(UAQ, SIMULATED)})
        with pytest.raises(PlanError, match=r"layer 0: .* convolution .*'uint8/token' for a Lin"):
            packed_copy(nn.Sequential(linear()), plan)
        with pytest.raises(FormatError, match="'uint8/token' for a Linear"):
            Linear().scale_dims(self.FORMAT)

    def test_gradients_pass_straight_through(self):
        layer = packed(copy.deepcopy(conv(padding=1)), UAQ, SIMULATED)
        x = noise(1, 4, 5, 5).requires_grad_()
        layer(x).sum().backward()
        exact = noise(1, 4, 5, 5).requires_grad_()
        layer.to_float()(exact).sum().backward()
        torch.testing.assert_close(x.grad, exact.grad, rtol=1e-4, atol=1e-5)
