"""Layers whose first outputs are stored."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mezzotint.errors import FormatError, PlanError
from mezzotint.formats import as_bits, from_bits
from mezzotint.plan import Choice, Plan
from mezzotint.runtime import (
    Calibration,
    ConstantTokens,
    check_plan,
    pack_layer,
    pack_module,
    packed_layers,
)
from tests.fuzzing import examples
from tests.runtime.layers import conv, linear, noise
from tests.runtime.structured import (
    TEXT,
    activations,
    assert_close,
    dtypes,
    known_tokens,
    packed,
    reference,
    sizes,
    text,
    weights,
)


@given(st.data(), weights, activations, dtypes)
@examples(60)
def test_the_first_outputs_are_the_constant_and_the_others_the_quantized_layer_s(
    data: st.DataObject, weight: str, activation: str, dtype: torch.dtype
):
    inputs, outputs, count = data.draw(sizes), data.draw(sizes), data.draw(st.integers(1, 3))
    batch, others = data.draw(st.integers(0, 3)), data.draw(st.integers(0, 4))
    layer = linear(inputs, outputs, data.draw(st.booleans())).to(dtype)
    choice = Choice(weight, activation, (ConstantTokens(count),))
    quantized = packed(layer, choice)
    x = text(batch, count + others, inputs, count=count).to(dtype)
    output = quantized(x)
    assert (output.shape, output.dtype) == ((batch, count + others, outputs), dtype)
    constant = noise(count, outputs, seed=3).to(dtype)
    assert torch.equal(output[:, :count], constant.expand(batch, -1, -1))
    assert_close(output[:, count:], reference(quantized, x))


def test_unchecked_the_constant_holds_whatever_the_first_token_is():
    choice = Choice("int4/channel", "int8/token", (ConstantTokens(1, checked=False),))
    quantized, x = packed(linear(), choice), text(2, 5, 19)
    assert torch.equal(quantized(x), packed(linear(), TEXT)(x))
    expected = quantized(x)
    x[:, 0] *= 1000
    assert torch.equal(quantized(x), expected)


def test_the_others_are_those_of_a_layer_without_constants():
    layer, x = linear(bias=False), text(2, 5, 19)
    assert torch.equal(packed(layer, TEXT)(x)[:, 1:], packed(layer, TEXT.plain)(x[:, 1:]))


def test_the_constant_is_stored_bit_for_bit():
    quantized = packed(linear(), TEXT)
    assert quantized.constant.dtype == torch.int32
    assert torch.equal(from_bits(quantized.constant, torch.float32), noise(1, 7, seed=3))


def test_nothing_of_the_constant_given_is_shared():
    constant = as_bits(noise(4, 7))
    known = as_bits(known_tokens(1, 19))
    tensors = {"0": {"constant": constant[:1], "known_input": known}}
    calibration = Calibration(tensors=tensors)
    quantized = pack_layer("0", linear(), Plan({"0": TEXT}), calibration)
    constant.zero_()
    assert torch.equal(from_bits(quantized.constant, torch.float32), noise(4, 7)[:1])
    assert quantized.constant.untyped_storage().nbytes() == 7 * 4


@pytest.mark.parametrize("shape", [(19,), (5, 19), (2, 0, 19), (1, 2, 3, 19)], ids=str)
def test_an_input_without_those_tokens_is_refused(shape: tuple[int, ...]):
    with pytest.raises(PlanError, match=r"met a layer of constant tokens.*leave constant_tok"):
        packed(linear(), TEXT)(noise(*shape))


def test_it_dequantizes_to_a_plain_linear():
    layer = linear()
    quantized = packed(layer, TEXT)
    restored = quantized.to_float()
    assert type(restored) is nn.Linear
    assert torch.equal(restored.weight, packed(layer, TEXT.plain).dequantized_weight())
    assert torch.equal(restored.bias, layer.bias)
    x = text(2, 5, 19)
    assert not torch.allclose(restored(x)[:, :1], quantized(x)[:, :1])


@pytest.mark.parametrize(
    ("constant", "complaint"),
    [
        (None, "constant_tokens needs its calibrated constant: apply the plan to a pipeline"),
        (as_bits(noise(7)), r"constant as torch.int32 of shape \(1, 7\), not .* shape \(7,\)"),
        (as_bits(noise(2, 7)), r"torch.int32 of shape \(1, 7\), not .* shape \(2, 7\)"),
        (noise(1, 7), r"constant as torch.int32 of shape \(1, 7\), not torch.float32"),
        (as_bits(torch.full((1, 7), torch.nan)), "constant holds NaN or infinite"),
    ],
    ids=["absent", "flat", "too-many", "float", "nan"],
)
def test_without_its_constant_the_layer_is_named_and_nothing_is_touched(
    constant: Tensor | None, complaint: str
):
    known = {"known_input": as_bits(known_tokens(1, 19))}
    tensors = {} if constant is None else {"1": {"constant": constant, **known}}
    calibration = Calibration(tensors=tensors)
    module = nn.Sequential(linear(19, 19), linear())
    plan = Plan({"0": TEXT.plain, "1": TEXT})
    with pytest.raises(FormatError, match=f"layer 1: .*{complaint}"):
        pack_module(module, plan, calibration)
    assert not packed_layers(module)


def test_a_convolution_has_none():
    with pytest.raises(PlanError, match="layer 0: a convolution has no constant tokens"):
        check_plan(nn.Sequential(conv()), Plan({"0": TEXT}))
