"""Weights unpacked once instead of at every call."""

import copy

import pytest
import torch
from torch import nn

from mezzotint.errors import UsageError
from mezzotint.formats import MINMAX
from mezzotint.plan import Choice, Plan
from mezzotint.runtime import Packing, QuantLayer, keep_unpacked, module_bytes, quantize_module
from tests.runtime.layers import linear, noise

pytestmark = pytest.mark.usefixtures("either_product")
X = noise(3, 16)
CHOICES = {"0": "int4/channel", "2": "mixed/int2:16,int3:16"}


@pytest.fixture
def model() -> nn.Module:
    layers = nn.Sequential(linear(16, 16), nn.ReLU(), linear(16, 32))
    choices = {name: Choice(weight, "int8/token") for name, weight in CHOICES.items()}
    return quantize_module(layers, Plan(choices), Packing(MINMAX))


def held(model: nn.Module) -> list[bool]:
    model(X)
    return [layer.held is not None for layer in model if isinstance(layer, QuantLayer)]


def test_nothing_is_held_unless_asked_for(model: nn.Module):
    assert held(model) == [False, False]


@pytest.mark.parametrize(
    ("spare", "total", "which"),
    [
        (255, 0, [False, False]),
        (256, 256, [True, False]),
        (767, 256, [True, False]),
        (768, 768, [True, True]),
    ],
)
def test_the_smallest_layers_fill_what_there_is_to_spare(
    model: nn.Module, spare: int, total: int, which: list[bool]
):
    assert keep_unpacked(model, spare) == total
    assert held(model) == which


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
    assert copy.deepcopy(model)[0].held is None


def test_layers_that_are_not_unpacked_hold_nothing():
    floating = quantize_module(nn.Sequential(linear()), Plan({"0": Choice("int4/channel")}))
    assert keep_unpacked(floating, 10_000) == 0


def test_less_than_nothing_is_refused(model: nn.Module):
    with pytest.raises(UsageError, match="spare_bytes: -1 is negative"):
        keep_unpacked(model, -1)
