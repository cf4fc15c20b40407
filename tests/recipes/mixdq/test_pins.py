"""Pinned and excluded layers under MixDQ's programs."""

from __future__ import annotations

import pytest

import mezzotint as mz
from mezzotint.errors import InfeasibleBudgetError, UsageError


def test_pinned_and_excluded_layers_get_what_was_asked_for(quantize):
    plan = quantize(
        mz.Budget(weight_bits=5.5),
        split="none",
        pin=("conv_out=int6/channel:float", "up_blocks*.to_q=lut5/channel"),
        exclude=("conv_in",),
    ).plan
    assert not plan["conv_in"].quantized
    assert (plan["conv_out"].weight, plan["conv_out"].activation) == ("int6/channel", "float")
    queries = [name for name in plan if name.startswith("up_blocks") and name.endswith("to_q")]
    assert queries
    assert {plan[name].weight for name in queries} == {"lut5/channel"}
    assert plan.reasons["conv_in"] == "stays floating: excluded by 'conv_in'"
    assert "pinned by 'conv_out=int6/channel:float'" in plan.reasons["conv_out"]


def test_inputs_are_pinned_to_those_that_the_recipe_has():
    with pytest.raises(UsageError, match="inputs are one of float, uint4/tensor, uint8/tensor"):
        mz.MixDQ(pin=("conv_in=uint8/channel:int8/token",))


def test_a_pin_that_the_budget_cannot_be_met_with_is_named(quantize):
    with pytest.raises(InfeasibleBudgetError, match="without pin '\\*=uint8/channel' it can"):
        quantize(mz.Budget(weight_bits=5.5), split="none", pin=("*=uint8/channel",))
