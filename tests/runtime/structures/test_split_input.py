"""Layers with a quantizer for each part of their input channels."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mezzotint.errors import FormatError, PlanError
from mezzotint.formats import MINMAX
from mezzotint.plan import Choice, Plan
from mezzotint.runtime import (
    Calibration,
    InputRange,
    SplitInput,
    check_plan,
    pack_layer,
)
from tests.fuzzing import examples
from tests.runtime.layers import conv, linear, noise
from tests.runtime.structured import (
    RANGES,
    SPLIT,
    activations,
    assert_close,
    dtypes,
    packed,
    reference,
    sizes,
    weights,
)


@given(st.data(), weights, activations, dtypes)
@examples(40)
def test_a_linear_is_the_sum_of_its_halves(
    data: st.DataObject, weight: str, activation: str, dtype: torch.dtype
):
    inputs, outputs = data.draw(st.integers(2, 21)), data.draw(sizes)
    choice = Choice(
        weight, activation, structures=(SplitInput(data.draw(st.integers(1, inputs - 1))),)
    )
    layer = linear(inputs, outputs, data.draw(st.booleans())).to(dtype)
    quantized = packed(layer, choice)
    shape = (*data.draw(st.lists(st.integers(0, 3), max_size=2)), inputs)
    x = noise(*shape).to(dtype)
    output = quantized(x)
    assert (output.shape, output.dtype) == ((*shape[:-1], outputs), dtype)
    assert_close(output, reference(quantized, x))


@given(st.data(), weights, activations, dtypes)
@examples(40)
def test_a_convolution_is_the_sum_of_its_halves(
    data: st.DataObject, weight: str, activation: str, dtype: torch.dtype
):
    inputs, outputs = data.draw(st.integers(2, 6)), data.draw(st.integers(1, 5))
    choice = Choice(
        weight, activation, structures=(SplitInput(data.draw(st.integers(1, inputs - 1))),)
    )
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
def test_each_half_has_its_own_scale(layer: nn.Linear | nn.Conv2d):
    layer = copy.deepcopy(layer)
    layer.weight.data[:, 2:] *= 100
    weight = layer.weight.detach()
    whole, split = packed(layer, SPLIT.plain), packed(layer, SPLIT)
    errors = [
        float((each.dequantized_weight()[:, :2] - weight[:, :2]).square().sum())
        for each in (whole, split)
    ]
    assert errors[1] < errors[0] / 100


def test_each_half_has_its_own_input_range():
    quantized = packed(
        linear(), Choice("int8/channel", "uint8/tensor", structures=(SplitInput(9),))
    )
    first, second = (part.round_input(torch.tensor([9.0, -9.0])) for part in quantized.parts)
    assert first.tolist() == pytest.approx([4.0, -4.0], abs=0.05)
    assert second.tolist() == pytest.approx([2.0, -3.0], abs=0.05)


@pytest.mark.parametrize("given", [(), RANGES[:1], (*RANGES, RANGES[0])], ids=len)
def test_a_static_format_needs_a_range_for_each_half(given: tuple[InputRange, ...]):
    choice = Choice("int8/channel", "uint8/tensor", structures=(SplitInput(9),))
    with pytest.raises(FormatError, match=r"layer 0: uint8/tensor needs .* its 2 parts"):
        pack_layer("0", linear(), Plan({"0": choice}), Calibration({"0": given}))


@pytest.mark.parametrize("layer", [linear(4, 7), conv()], ids=["linear", "conv2d"])
@pytest.mark.parametrize("split", [4, 5, 1000])
def test_a_split_outside_the_channels_is_refused(layer: nn.Module, split: int):
    plan = Plan({"0": Choice("int4/channel", structures=(SplitInput(split),))})
    with pytest.raises(PlanError, match=f"layer 0: split: first is {split}, but there are 4 input"):
        check_plan(nn.Sequential(layer), plan)


def test_a_convolution_in_groups_is_refused():
    with pytest.raises(PlanError, match="layer 0: a convolution of 2 groups cannot be split"):
        check_plan(nn.Sequential(conv(groups=2)), Plan({"0": SPLIT}))


def test_another_padding_mode_is_refused_as_ever():
    odd = nn.Sequential(conv(padding=1, padding_mode="reflect"))
    with pytest.raises(PlanError, match=r"layer 0: padding_mode 'reflect'.*choose 'float'"):
        check_plan(odd, Plan({"0": SPLIT}))


@pytest.mark.parametrize("columns", [1, 18, 20])
def test_an_input_of_another_width_is_an_error(columns: int):
    with pytest.raises(RuntimeError):
        packed(linear(), SPLIT)(noise(3, columns))


@pytest.mark.parametrize("layer", [linear(), conv(padding=1, stride=2)], ids=type)
def test_it_dequantizes_to_one_stock_layer(layer: nn.Module):
    restored = packed(layer, SPLIT).to_float()
    assert type(restored) is type(layer)
    assert repr(restored) == repr(layer)
    assert torch.equal(restored.bias, layer.bias)
    halves = [
        SPLIT.plain.weight_format.roundtrip(half, MINMAX)
        for half in layer.weight.detach().split((2, layer.weight.shape[1] - 2), 1)
    ]
    assert torch.equal(restored.weight, torch.cat(halves, 1))
