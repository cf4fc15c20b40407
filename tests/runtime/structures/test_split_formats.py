"""Halves of a split input with weights of two formats."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mezzotint.formats import MINMAX, parse_weight_format
from mezzotint.plan import Choice, Encoding, LayerShape, Plan
from mezzotint.runtime import (
    ConstantTokens,
    Smoothing,
    SplitInput,
    executions,
    module_bytes,
    nominal_bits,
    pack_module,
    shape_of,
    stored_tensors,
    weights_by_format,
)
from tests.fuzzing import examples
from tests.runtime.layers import conv, linear, noise
from tests.runtime.structured import activations, assert_close, dtypes, packed, reference

FORMATS = (
    *("kmeans3/channel", "kmeans4/tensor", "kmeans1/channel", "uint3/channel", "int8/tensor"),
    *("lut2/channel", "int1/channel", "uint4/group4", "uint2/group4"),
)
MIXED = Choice("kmeans4/channel", "uint8/token", (SplitInput(2),), (("second", "uint3/channel"),))

formats = st.sampled_from(FORMATS)


def halves(weights: tuple[str, str], activation: str, first: int) -> Choice:
    return Choice(weights[0], activation, (SplitInput(first),), (("second", weights[1]),))


@given(st.data(), st.tuples(formats, formats), activations, dtypes)
@examples(40)
def test_a_linear_is_the_sum_of_its_halves(
    data: st.DataObject, weights: tuple[str, str], activation: str, dtype: torch.dtype
):
    inputs = data.draw(st.integers(2, 21))
    choice = halves(weights, activation, data.draw(st.integers(1, inputs - 1)))
    quantized = packed(linear(inputs, data.draw(st.integers(1, 9))).to(dtype), choice)
    x = noise(*data.draw(st.lists(st.integers(1, 3), max_size=2)), inputs).to(dtype)
    assert_close(quantized(x), reference(quantized, x))


@given(st.data(), st.tuples(formats, formats), activations, dtypes)
@examples(30)
def test_a_convolution_is_the_sum_of_its_halves(
    data: st.DataObject, weights: tuple[str, str], activation: str, dtype: torch.dtype
):
    inputs = data.draw(st.integers(2, 6))
    choice = halves(weights, activation, data.draw(st.integers(1, inputs - 1)))
    quantized = packed(conv(inputs, data.draw(st.integers(1, 5)), padding=1).to(dtype), choice)
    x = noise(2, inputs, 5, 7).to(dtype)
    assert_close(quantized(x), reference(quantized, x))


@given(st.data(), st.tuples(formats, formats))
@examples(40)
def test_each_half_is_stored_in_its_own(data: st.DataObject, weights: tuple[str, str]):
    layer = data.draw(st.sampled_from([linear(8, 6), conv(8, 6)]))
    first = data.draw(st.integers(1, 7))
    quantized = packed(layer, halves(weights, "float", first))
    parts = layer.weight.detach().split((first, 8 - first), 1)
    exact = [
        parse_weight_format(name).roundtrip(part, MINMAX)
        for name, part in zip(weights, parts, strict=True)
    ]
    assert torch.equal(quantized.dequantized_weight(), torch.cat(exact, 1))
    assert [str(part.weight_format) for part in quantized.parts] == list(weights)


@given(st.data(), st.tuples(formats, formats))
@examples(40)
def test_bytes_and_bits_count_both(data: st.DataObject, weights: tuple[str, str]):
    layer, first = linear(8, 6, bias=False), data.draw(st.integers(1, 7))
    choice, shape = halves(weights, "float", first), shape_of(layer)
    shapes = (6, first), (6, 8 - first)
    known = [parse_weight_format(name) for name in weights]
    stored = sum(fmt.stored_bytes(each) for fmt, each in zip(known, shapes, strict=True))
    specs = stored_tensors(choice, shape.weight)
    assert sum(spec.nbytes for spec in specs.values()) == stored
    assert module_bytes(packed(layer, choice)) == stored
    bits = sum(fmt.bits * math.prod(each) for fmt, each in zip(known, shapes, strict=True))
    assert nominal_bits(choice, shape) == pytest.approx(bits / 48)
    assert sum(weights_by_format(choice, shape).values()) == 48


def test_halves_of_one_format_count_as_a_layer_of_it():
    shape = LayerShape((6, 8))
    alike = Choice("uint3/channel", "int8/token", (ConstantTokens(1), SplitInput(3), Smoothing()))
    assert weights_by_format(alike, shape) == {Choice("uint3/channel", "int8/token"): 48}
    assert nominal_bits(alike, shape) == 3
    assert nominal_bits(Choice(), shape) is None


def test_a_format_that_goes_with_one_half_alone_is_taken():
    choice = Choice("uint4/group8", "float", (SplitInput(8),), (("second", "int4/channel"),))
    quantized = packed(linear(19, 7), choice)
    assert [str(part.weight_format) for part in quantized.parts] == ["uint4/group8", "int4/channel"]


def test_the_report_names_both_kernels_and_why_one_is_no_faster():
    module = nn.Sequential(linear(8, 6))
    pack_module(module, Plan({"0": MIXED}, encoding=Encoding(MINMAX)))
    (row,) = executions(module)
    names = [part.selection.kernel.name for part in module[0].parts]
    assert row.kernel == ", ".join(names)
    assert row.arithmetic == "float, int8"
    assert row.products == "float, inputs rounded to uint8/token, int8"
    assert "levels that are integers" in row.reason


def test_halves_of_one_kernel_are_reported_once():
    module = nn.Sequential(linear(8, 6))
    choice = halves(("int4/channel", "uint2/channel"), "int8/token", 3)
    pack_module(module, Plan({"0": choice}, encoding=Encoding(MINMAX)))
    (row,) = executions(module)
    assert (row.arithmetic, row.products, row.reason) == ("int8", "int8", None)
    assert "," not in row.kernel
