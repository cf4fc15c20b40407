"""8-bit codes in the layout of the processor's products, instead of as they are stored."""

import copy
import io
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch.func import functional_call

from mezzotint.runtime import QuantLayer, module_bytes
from tests.runtime.layers import conv, linear, noise, packed

pytestmark = pytest.mark.usefixtures("either_product")

# Seven-bit inputs: what is kept does not depend on the processor.
EITHER = pytest.mark.parametrize(
    ("layer", "x"),
    [(linear(20, 32), noise(5, 20)), (conv(8, 16, padding=1), noise(2, 8, 6, 6))],
    ids=["linear", "conv2d"],
)
EVERY = pytest.mark.parametrize("weight", ["int8/channel", "uint8/channel", "int8/tensor"])


def fresh(layer: nn.Module, weight: str = "int8/channel") -> QuantLayer:
    return packed(layer, weight, "int7/token")


def used(layer: nn.Module, x: Tensor, weight: str = "int8/channel") -> QuantLayer:
    found = fresh(layer, weight)
    found(x)
    assert found.prepared is not None
    assert found.prepared.replaces == "codes"
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
@pytest.mark.parametrize("weight", ["int7/channel", "mixed/int2:3,int8:{}"])
def test_other_widths_stay_as_they_are_stored(layer: nn.Module, x: Tensor, weight: str):
    weight = weight.format(len(layer.weight) - 3)
    found = packed(layer, weight, "int7/token")
    found(x)
    assert found.prepared is None


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


@EITHER
def test_a_scale_edited_in_place_is_seen(layer: nn.Module, x: Tensor):
    found = used(layer, x)
    before = found(x)
    found.get_buffer("weight_scale").add_(1 << 7)  # twice the scale, as bits of a bfloat16
    assert not torch.allclose(found(x), before)
    assert torch.allclose(found(x), found.to_float()(found.round_input(x)), atol=1e-5)


@EITHER
def test_weights_lent_for_one_call_are_given_back(layer: nn.Module, x: Tensor):
    found, other = used(layer, x), copy.deepcopy(layer)
    other.weight.data.neg_()
    before, lent = found(x), fresh(other)
    assert torch.equal(functional_call(found, lent.state_dict(), (x,)), lent(x))
    assert torch.equal(found(x), before)


@EITHER
def test_what_is_used_in_inference_mode_can_be_loaded_into_afterwards(layer: nn.Module, x: Tensor):
    found = fresh(layer)
    with torch.inference_mode():
        found(x)
        state = found.state_dict()
    found.load_state_dict(state)
    assert torch.equal(found(x), fresh(layer)(x))


@EITHER
def test_a_shallow_copy_computes_the_same(layer: nn.Module, x: Tensor):
    found = fresh(layer)
    shallow = copy.copy(found)
    expected = found(x)
    assert torch.equal(shallow(x), expected)


@EITHER
def test_many_threads_may_call_and_save_one_layer(layer: nn.Module, x: Tensor):
    found = fresh(layer)
    expected, stored = copy.deepcopy(found)(x), copy.deepcopy(found).state_dict()

    def once(index: int) -> bool:
        if index % 3 == 0:
            return torch.equal(found.state_dict()["weight_codes"], stored["weight_codes"])
        return torch.equal(found(x), expected)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(once, range(60)))


@EITHER
def test_a_compiled_layer_lets_gradients_pass(layer: nn.Module, x: Tensor):
    torch._dynamo.reset()
    compiled = torch.compile(fresh(layer), backend="aot_eager", fullgraph=True)
    x = x.clone().requires_grad_()
    compiled(x).sum().backward()
    assert x.grad is not None
    assert bool(x.grad.any())
