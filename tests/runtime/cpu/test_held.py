"""Weights unpacked once instead of at every call."""

import copy

import pytest
import torch
from torch import nn

from mezzotint.errors import UsageError
from mezzotint.formats import MINMAX
from mezzotint.plan import Choice, Encoding, Plan
from mezzotint.runtime import QuantLayer, keep_unpacked, module_bytes, quantize_module
from tests.runtime.layers import linear, noise

pytestmark = pytest.mark.usefixtures("either_product")
X = noise(3, 16)
CHOICES = {"0": "int4/channel", "2": "mixed/int2:16,int3:16"}


@pytest.fixture
def model() -> nn.Module:
    layers = nn.Sequential(linear(16, 16), nn.ReLU(), linear(16, 32))
    choices = {name: Choice(weight, "int8/token") for name, weight in CHOICES.items()}
    return quantize_module(layers, Plan(choices, encoding=Encoding(MINMAX)))


def unpacked_bytes(layer: QuantLayer) -> int:
    return layer.selection.kernel.unpacked_bytes(layer.request_on("cpu"))


def held(model: nn.Module) -> list[bool]:
    model(X)
    layers = [layer for layer in model if isinstance(layer, QuantLayer)]
    return [bool(layer.prepared and layer.prepared.replaces is None) for layer in layers]


def test_nothing_is_held_unless_asked_for(model: nn.Module):
    assert held(model) == [False, False]


@pytest.mark.parametrize(("small", "large"), [(False, False), (True, False), (True, True)])
def test_the_smallest_layers_fill_what_there_is_to_spare(
    model: nn.Module, small: bool, large: bool
):
    sizes = [unpacked_bytes(layer) for layer in (model[0], model[2])]
    assert sizes[0] < sizes[1]
    spare = small * sizes[0] + large * sizes[1]
    assert keep_unpacked(model, spare) == spare
    assert held(model) == [small, large]


def test_one_byte_less_than_a_layer_takes_holds_nothing_of_it(model: nn.Module):
    size = unpacked_bytes(model[0])
    assert keep_unpacked(model, size - 1) == 0
    assert held(model) == [False, False]


def test_what_stands_in_for_the_stored_codes_takes_nothing_of_it():
    layers = nn.Sequential(linear(16, 16), linear(16, 32))
    choices = {"0": Choice("int8/channel", "int7/token"), "1": Choice("int4/channel", "int8/token")}
    model = quantize_module(layers, Plan(choices, encoding=Encoding(MINMAX)))
    size = unpacked_bytes(model[1])
    assert keep_unpacked(model, size) == size
    assert held(model) == [False, True]


def test_moving_lets_go_of_it(model: nn.Module):
    keep_unpacked(model, 1000)
    model(X)
    model.to("meta")
    assert model[0].prepared is None


def test_results_and_stored_bytes_stay_the_same(model: nn.Module):
    before, size = model(X), module_bytes(model)
    keep_unpacked(model, 1000)
    assert torch.equal(model(X), before)
    assert torch.equal(model(X), before)
    assert module_bytes(model) == size


def test_nothing_to_spare_takes_it_back(model: nn.Module):
    keep_unpacked(model, 1000)
    model(X)
    assert keep_unpacked(model, 0) == 0
    assert held(model) == [False, False]


def test_a_new_weight_is_unpacked_anew(model: nn.Module):
    keep_unpacked(model, 1000)
    model(X)
    other = copy.deepcopy(model)
    other[0].get_buffer("weight_codes").bitwise_not_()
    model.load_state_dict(other.state_dict())
    assert torch.equal(model(X), other(X))


def test_copies_hold_their_own(model: nn.Module):
    keep_unpacked(model, 1000)
    model(X)
    assert copy.deepcopy(model)[0].prepared is None


def test_layers_that_are_not_unpacked_hold_nothing():
    floating = quantize_module(nn.Sequential(linear()), Plan({"0": Choice("int4/channel")}))
    assert keep_unpacked(floating, 10_000) == 0


def test_less_than_nothing_is_refused(model: nn.Module):
    with pytest.raises(UsageError, match="spare_bytes: -1 is negative"):
        keep_unpacked(model, -1)
