"""Structures within structures."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mezzotint.errors import FormatError, PlanError
from mezzotint.formats import MINMAX, as_bits
from mezzotint.plan import Choice, Encoding, Plan, Structure
from mezzotint.runtime import (
    Calibration,
    ConstantTokens,
    InputRange,
    PackedLayer,
    SplitInput,
    calibrated_tensors,
    check_plan,
    executions,
    module_bytes,
    pack_layer,
    packed_layers,
    stored_tensors,
)
from tests.runtime.layers import conv, linear, noise
from tests.runtime.structured import known_tokens, text
from tests.runtime.structures.scaled import Evened, InputScale

SCALED_REST = (ConstantTokens(1), InputScale())
DEEP = (ConstantTokens(1), InputScale(), SplitInput(9))
STATIC = Choice("int8/channel", "uint8/tensor", DEEP)


def packed(layer: nn.Module, choice: Choice) -> PackedLayer:
    ranges = tuple(InputRange(-64.0 - n, 64.0 + n) for n in range(choice.parts))
    first = choice.structures[0]
    constants = {}
    if first.calibrated:
        constants["constant"] = as_bits(noise(1, 7, seed=3))
        constants["known_input"] = as_bits(known_tokens(1, 19))
    plan = Plan({"0": choice}, encoding=Encoding(MINMAX))
    return pack_layer("0", layer, plan, Calibration({"0": ranges}, {"0": constants}))


def uneven() -> nn.Linear:
    """Input channels of very different weights."""
    layer = linear()
    layer.weight.data *= torch.logspace(-3, 3, 19, base=2)
    return layer


def test_the_parts_of_the_first_are_layers_of_the_second():
    layer, x = uneven(), text(2, 5, 19)
    found = packed(layer, Choice("int4/channel", "int8/token", SCALED_REST))
    alone = packed(layer, Choice("int4/channel", "int8/token", (InputScale(),)))
    assert torch.equal(found(x)[:, :1], noise(1, 7, seed=3).expand(2, 1, -1))
    assert torch.equal(found(x)[:, 1:], alone(x[:, 1:]))


def test_the_inner_one_helps_as_it_does_alone():
    layer, x = uneven(), text(2, 5, 19)
    without, with_scale = (
        packed(layer, Choice("int4/channel", "float", structures))(x)[:, 1:]
        for structures in (SCALED_REST[:1], SCALED_REST)
    )
    exact = layer(x)[:, 1:]
    assert (with_scale - exact).norm() < (without - exact).norm() / 2


def test_tensors_are_named_by_their_place():
    found = stored_tensors(STATIC, (7, 19))
    parts = ("weight_codes", "weight_scale", "input_scale", "input_zero_point")
    assert found.keys() == {
        "constant",
        "known_input",
        "others.exponent",
        *(f"others.scaled.{half}.{name}" for half in ("first", "second") for name in parts),
    }
    layer = packed(uneven(), STATIC)
    assert {n: (b.shape, b.dtype) for n, b in layer.named_buffers()} == {
        name: (spec.shape, spec.dtype) for name, spec in found.items()
    }
    assert module_bytes(layer) == sum(spec.nbytes for spec in found.values()) + 4 * 7


def test_what_the_weight_does_not_tell_is_calibrated():
    inputs = ("input_scale", "input_zero_point")
    assert calibrated_tensors(STATIC, (7, 19)).keys() == {
        "constant",
        "known_input",
        *(f"others.scaled.{half}.{name}" for half in ("first", "second") for name in inputs),
    }


def test_every_quantizer_has_its_own_range_in_order():
    assert STATIC.parts == 2
    first, second = (
        part.round_input(torch.tensor([99.0])) for part in packed(uneven(), STATIC).parts
    )
    assert (float(first), float(second)) == (pytest.approx(64, abs=0.6), pytest.approx(65, abs=0.6))


def test_it_is_one_layer_of_its_model():
    module = nn.Sequential(packed(uneven(), STATIC))
    assert list(packed_layers(module)) == ["0"]
    assert [each.layer for each in executions(module)] == ["0"]
    assert "constant tokens: 1, scaled inputs (input_scale), split at 9" in repr(module)


def test_it_dequantizes_to_a_stock_layer():
    layer = uneven()
    restored = packed(layer, STATIC).to_float()
    assert type(restored) is nn.Linear
    assert torch.equal(restored.bias, layer.bias)
    assert (restored.weight - layer.weight).norm() < 0.01 * layer.weight.norm()


def test_it_compiles_to_one_graph():
    found, x = packed(uneven(), STATIC), text(2, 5, 19)
    torch._dynamo.reset()
    compiled = torch.compile(found, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), found(x))


def test_what_an_inner_one_needs_calibrated_is_named():
    choice = Choice("int8/channel", structures=(SplitInput(9), Evened()))
    with pytest.raises(FormatError, match=r"layer 0: evened needs its calibrated first\.expo"):
        pack_layer("0", linear(), Plan({"0": choice}))


@pytest.mark.parametrize(
    ("structures", "complaint"),
    [
        ((ConstantTokens(1), ConstantTokens(2)), "constant_tokens stands twice; keep one"),
        ((SplitInput(2), SplitInput(3)), "split stands twice; keep one of them"),
        ((SplitInput(2), ConstantTokens(1)), "split cannot hold .*; put constant_tokens first"),
        ((InputScale(), SplitInput(2), InputScale(1)), "input_scale stands twice; keep one"),
        ((SplitInput(2), InputScale(), ConstantTokens(1)), "split cannot hold constant_tokens"),
    ],
    ids=[
        "constant twice",
        "split twice",
        "somebody's twice",
        "constant in split",
        "constant in split, deeper",
    ],
)
def test_a_pair_that_cannot_compose_is_refused_by_name(
    structures: tuple[Structure, ...], complaint: str
):
    with pytest.raises(FormatError, match=complaint):
        Choice("int4/channel", structures=structures)


def test_an_inner_one_that_its_part_cannot_have_names_the_layer():
    choice = Choice("int4/channel", structures=(InputScale(), SplitInput(4)))
    with pytest.raises(PlanError, match="layer 0: split: first is 4, but there are 4 input"):
        check_plan(nn.Sequential(conv()), Plan({"0": choice}))
