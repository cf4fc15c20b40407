"""Vector units: every one gives the same outputs, and any may be named."""

import pytest
import torch

from mezzotint.errors import UsageError
from mezzotint.runtime.cpu import OWN, units
from mezzotint.runtime.kernels import select_kernel
from tests.runtime.layers import conv, linear, noise, packed, run

WEIGHTS = (*(f"uint{bits}/channel" for bits in range(1, 9)), "lut4/channel", "mixed/int2:9,int7:58")


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("activation", ["int8/token", "uint8/tensor"])
def test_all_units_give_the_same_bits(
    weight: str, activation: str, monkeypatch: pytest.MonkeyPatch
):
    for layer, x in (
        (linear(96, 67), noise(7, 96)),
        (linear(37, 67), noise(7, 37)),
        (conv(32, 67, padding=1), noise(2, 32, 6, 5)),
    ):
        found = packed(layer, weight, activation)
        outputs = []
        for each in units.units():
            monkeypatch.setattr(units, "unit", lambda each=each: each)
            outputs.append(run(OWN, found, x))
            assert torch.equal(outputs[-1], outputs[0])
        assert outputs


def test_the_fastest_unit_multiplies_unless_another_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(units.SWITCH, raising=False)
    assert units.unit() == units.units()[0]
    for each in units.units():
        monkeypatch.setenv(units.SWITCH, each.name)
        assert units.unit() == each


def test_a_unit_that_is_not_there_is_an_error_that_names_those_that_are(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv(units.SWITCH, "abacus")
    with pytest.raises(UsageError, match=r"'abacus', but the units here are: .*AVX2|none"):
        select_kernel(packed(linear(), "int4/channel", "int8/token").request_on("cpu"))
