"""Bias correction: what a rounded weight adds to outputs on average is taken off the bias."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mezzotint.calibration import input_moments
from mezzotint.errors import FormatError
from mezzotint.formats import MINMAX, as_bits
from mezzotint.models import Call
from mezzotint.plan import Choice, Encoding, LayerShape, Plan
from mezzotint.rounding import InputMoments
from mezzotint.runtime import Calibration, ConstantTokens, PackedLayer, SplitInput, pack_layer
from tests.runtime.layers import conv, linear, noise

PLAIN, CORRECTED = Encoding(MINMAX), Encoding(MINMAX, bias_correction=True)
W2 = Choice("int2/channel")
TOKENS = ConstantTokens(1)


def packed(layer: nn.Module, x: Tensor, choice: Choice, encoding: Encoding) -> PackedLayer:
    """The layer, packed after moments of `x`."""
    tensors = {}
    if choice.structures[:1] == (TOKENS,):
        constant = as_bits(layer(x)[0, :1].detach().float())
        tensors = {"0": {"constant": constant, "known_input": as_bits(x[0, :1].bfloat16())}}
    model, calls = nn.Sequential(layer), [Call((x,), {})]
    moments = input_moments(model, {"0": choice}, calls, grams=False, tensors=tensors)
    calibration = Calibration(tensors=tensors, moments=moments)
    return pack_layer("0", layer, Plan({"0": choice}, encoding=encoding), calibration)


CASES = {
    "linear": (linear(), noise(50, linear().in_features) + 1, W2),
    "convolution": (conv(), noise(2, conv().in_channels, 7, 7) + 1, W2),
    "grouped": (nn.Conv2d(6, 8, 3, groups=2, padding=1), noise(2, 6, 7, 7) + 1, W2),
    "split": (
        linear(),
        noise(50, linear().in_features) + 1,
        Choice(W2.weight, "float", (SplitInput(2),)),
    ),
    "constant tokens": (
        linear(),
        torch.cat(
            [torch.ones(5, 1, linear().in_features), noise(5, 6, linear().in_features) + 1], 1
        ),
        Choice(W2.weight, "float", (TOKENS,)),
    ),
}


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor, Choice]:
    return request.param


def mean_error(layer: nn.Module, made: PackedLayer, x: Tensor) -> Tensor:
    """Per output channel."""
    with torch.no_grad():
        error = layer(x) - made(x)
    if made.choice.structures[:1] == (TOKENS,):
        assert error[:, 0].abs().max() < 1e-5, "constant tokens are as they were"
        error = error[:, 1:]
    channels = 1 if isinstance(layer, nn.Conv2d) else -1
    return error.transpose(0, channels).flatten(1).mean(1)


def test_outputs_are_right_on_average(case: tuple[nn.Module, Tensor, Choice]):
    layer, x, choice = case
    before = mean_error(layer, packed(layer, x, choice, PLAIN), x)
    after = mean_error(layer, packed(layer, x, choice, CORRECTED), x)
    assert before.abs().max() > 0.01
    assert after.abs().max() < 1e-5


def test_only_the_bias_changes(case: tuple[nn.Module, Tensor, Choice]):
    layer, x, choice = case
    left, right = (packed(layer, x, choice, each).state_dict() for each in (PLAIN, CORRECTED))
    assert {name for name in left if not torch.equal(left[name], right[name])} == {"bias"}


def test_the_floating_layer_is_left_alone():
    layer, x = linear(), noise(9, linear().in_features) + 1
    bias = layer.bias.detach().clone()
    packed(layer, x, W2, CORRECTED)
    assert torch.equal(layer.bias, bias)


def test_a_layer_without_a_bias_needs_no_moments():
    layer = nn.Linear(6, 4, bias=False)
    made = pack_layer("0", layer, Plan({"0": W2}, encoding=CORRECTED))
    assert made.bias is None


def test_a_bias_of_half_precision_keeps_its_dtype():
    layer = linear().half()
    made = packed(layer, (noise(9, layer.in_features) + 1).half(), W2, CORRECTED)
    assert made.bias.dtype == torch.float16
    assert not torch.equal(made.bias, layer.bias)


def test_a_structure_of_other_outputs_has_to_say_what_a_bias_can_do():
    shifts = {"first": torch.zeros(3), "second": torch.zeros(3)}
    with pytest.raises(FormatError, match=r"split: its parts have other outputs .*bias_correction"):
        SplitInput(2).join_shifts(shifts, LayerShape((6, 5)))


@pytest.mark.parametrize(
    ("moments", "message"),
    [
        ({}, "layer 0: bias_correction needs the calibrated moments of its inputs"),
        (
            {"0": (InputMoments((), torch.zeros(1, 3), 5),)},
            "layer 0: moments of 1 group.* of another layer",
        ),
        (
            {"0": (InputMoments((), torch.full((1, 6), torch.nan), 5),)},
            "layer 0: the moments of its inputs hold NaN",
        ),
    ],
    ids=["none", "another layer", "NaN"],
)
def test_moments_of_something_else_are_refused(moments: dict, message: str):
    plan = Plan({"0": W2}, encoding=CORRECTED)
    with pytest.raises(FormatError, match=message):
        pack_layer("0", nn.Linear(6, 4), plan, Calibration(moments=moments))
