"""8-bit codes in the layout of the processor's products, instead of as they are stored."""

import copy
import io

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

from mezzotint.runtime import QuantLayer, module_bytes
from tests.runtime.layers import conv, linear, noise, packed

# Seven-bit inputs: what is kept does not depend on the processor.
EITHER = pytest.mark.parametrize(
    ("layer", "x"),
    [(linear(19, 33), noise(5, 19)), (conv(5, 7, padding=1), noise(2, 5, 6, 6))],
    ids=["linear", "conv2d"],
)
EVERY = pytest.mark.parametrize("weight", ["int8/channel", "uint8/channel", "int8/tensor"])


def fresh(layer: nn.Module, weight: str = "int8/channel") -> QuantLayer:
    return packed(layer, weight, "int7/token")


def used(layer: nn.Module, x: Tensor, weight: str = "int8/channel") -> QuantLayer:
    found = fresh(layer, weight)
    found(x)
    assert found.kept
    return found


@EITHER
@EVERY
def test_the_stored_codes_come_back_bit_for_bit(layer: nn.Module, x: Tensor, weight: str):
    before = fresh(layer, weight).state_dict()
    after = used(layer, x, weight).state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@EITHER
def test_codes_are_not_held_twice(layer: nn.Module, x: Tensor):
    assert used(layer, x).get_buffer("weight_codes").is_meta


@EITHER
@EVERY
def test_the_output_stays_the_same_from_the_first_call_on(layer: nn.Module, x: Tensor, weight: str):
    found = fresh(layer, weight)
    first = found(x)
    assert torch.equal(found(x), first)
    module_bytes(found)
    assert torch.equal(found(x), first)


@EITHER
@pytest.mark.parametrize("weight", ["int7/channel", "mixed/int2:3,int8:4"])
def test_other_widths_stay_as_they_are_stored(layer: nn.Module, x: Tensor, weight: str):
    layer = linear() if isinstance(layer, nn.Linear) else layer
    found = packed(layer, weight, "int7/token")
    found(x)
    assert found.kept is None


@EITHER
def test_a_copy_and_its_original_are_independent(layer: nn.Module, x: Tensor):
    found = used(layer, x)
    expected = found(x)
    copied = copy.deepcopy(found)
    copied.get_buffer("weight_codes").zero_()
    assert torch.equal(found(x), expected)
    assert not torch.equal(copied(x), expected)


@EITHER
def test_a_used_layer_can_be_written_and_read_by_torch(layer: nn.Module, x: Tensor):
    found = used(layer, x)
    file = io.BytesIO()
    torch.save(found, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(x), found(x))


@EITHER
def test_a_state_loaded_into_a_used_layer_replaces_its_codes(layer: nn.Module, x: Tensor):
    other = copy.deepcopy(layer)
    other.weight.data.neg_()
    found, loaded = used(layer, x), used(other, x)
    found.load_state_dict(loaded.state_dict())
    assert torch.equal(found(x), loaded(x))


@EITHER
def test_codes_put_in_their_place_are_used(layer: nn.Module, x: Tensor):
    # As hooks do that bring weights in for a call and take them away after it.
    other = copy.deepcopy(layer)
    other.weight.data.neg_()
    found, expected = used(layer, x), fresh(other)
    found.weight_codes = expected.get_buffer("weight_codes").clone()
    found.weight_scale = expected.get_buffer("weight_scale").clone()
    assert torch.equal(found(x), expected(x))


@EITHER
def test_moving_and_casting_bring_the_codes_back(layer: nn.Module, x: Tensor):
    found = used(layer, x)
    found.to("cpu")
    assert not found.get_buffer("weight_codes").is_meta
    assert used(layer, x).to("meta").get_buffer("weight_codes").is_meta
    assert torch.equal(used(layer, x).bfloat16()(x), fresh(layer).bfloat16()(x))


@EITHER
def test_a_used_layer_still_turns_into_a_stock_one(layer: nn.Module, x: Tensor):
    assert torch.equal(used(layer, x).to_float().weight, fresh(layer).to_float().weight)


@EITHER
def test_a_compiled_layer_is_not_compiled_anew_by_its_first_call(layer: nn.Module, x: Tensor):
    found = fresh(layer)
    expected = copy.deepcopy(found)(x)
    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = torch.compile(found, backend=counter, fullgraph=True)
    for _ in range(3):
        assert torch.equal(compiled(x), expected)
    assert counter.frame_count == 1
