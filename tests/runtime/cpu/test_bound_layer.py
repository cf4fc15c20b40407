"""Layers as the C functions know them, where several threads of Python call one."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from mezzotint.formats import parse_activation_format
from mezzotint.runtime.cpu import OWN, bound_layer, units
from mezzotint.runtime.cpu.bound_layer import BoundLayer
from mezzotint.runtime.cpu.int8_own import OwnWeight
from mezzotint.runtime.operands import InputQuantizer
from tests.runtime.layers import linear, noise, packed

pytestmark = pytest.mark.skipif(units.unit() is None, reason="there is no vector unit")

ACTIVATION = parse_activation_format("int8/token")


class Interrupted:
    """Makes a structure after another thread has begun and ended the same."""

    def __init__(self, bound: BoundLayer) -> None:
        self.bound = bound
        self.others: list[ctypes.Structure] = []

    def from_buffer_copy(self, layer: Any) -> Any:
        if not self.others:
            self.others.append(layer)
            self.others = [self.bound._layer_for(ACTIVATION)]
        return type(layer).from_buffer_copy(layer)


@pytest.fixture
def bound() -> BoundLayer:
    layer = packed(linear(), "int4/channel", "int8/token")
    found = OWN.prepare(layer.packed_weight, layer.operation)
    assert isinstance(found, OwnWeight)
    return found.bound


def test_two_first_calls_share_one_structure(bound: BoundLayer, monkeypatch: pytest.MonkeyPatch):
    interrupted = Interrupted(bound)
    monkeypatch.setattr(bound_layer, "_Layer", interrupted)
    found = bound._layer_for(ACTIVATION)
    assert interrupted.others == [found]


def test_what_a_call_points_to_lives_as_long_as_its_fields(bound: BoundLayer):
    x = noise(3, bound.shape[1])
    assert bound.output(x, InputQuantizer(ACTIVATION), None) is not None
    (shaped,) = bound._shapes.values()
    assert shaped.call.layer == ctypes.addressof(shaped.layer)
