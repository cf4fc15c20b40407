"""Pinned and excluded layers: they get what was asked for, and the program spends the rest."""

from __future__ import annotations

import pytest

import mezzotint as mz
from mezzotint.errors import InfeasibleBudgetError, UsageError
from mezzotint.runtime import module_bytes, packed_layers

QUICK = {"sensitivity": "probes", "exchanges": False, "bias_correction": "never"}


def test_a_pinned_layer_has_the_pinned_format_and_the_budget_still_holds(run):
    free = run(mz.Budget(4), **QUICK).plan
    plan = run(mz.Budget(4), **QUICK, pin=("last=int6/channel", "first=lut3/channel:float")).plan
    assert free["last"].weight != "int6/channel"
    assert plan["last"].weight == "int6/channel"
    assert (plan["first"].weight, plan["first"].activation) == ("lut3/channel", "float")
    assert plan.reasons["last"].endswith("pinned by 'last=int6/channel'")
    assert plan.context["pin"] == ["last=int6/channel", "first=lut3/channel:float"]


def test_the_other_layers_pay_for_a_pin(run):
    free, pinned = (run(mz.Budget(4), **QUICK, pin=pin) for pin in ((), ("last=int8/channel",)))
    sizes = [module_bytes(each.module) for each in (free, pinned)]
    layers = [
        {n: module_bytes(layer) for n, layer in packed_layers(each.module).items()}
        for each in (free, pinned)
    ]
    assert layers[1]["last"] > layers[0]["last"]
    assert sum(layers[1].values()) - layers[1]["last"] < sum(layers[0].values()) - layers[0]["last"]
    assert sizes[1] <= 4 * 32 * 32 * 4 // 8 + 4 * 32 * 4


def test_a_pin_may_name_a_format_that_others_do_not_choose_from(run):
    plan = run(mz.Budget(6), **QUICK, pin=("middle=uint5/channel:uint8/tensor",)).plan
    assert (plan["middle"].weight, plan["middle"].activation) == ("uint5/channel", "uint8/tensor")
    assert {plan[n].weight for n in plan if n != "middle"}.isdisjoint({"uint5/channel"})


def test_excluded_layers_stay_floating_and_do_not_count(run):
    result = run(mz.Budget(4), **QUICK, exclude=("last",))
    assert "last" not in packed_layers(result.module)
    assert [*result.plan] == ["first", "peaked", "middle", "last"]
    assert result.plan.reasons["last"] == "stays floating: excluded by 'last'"
    assert result.plan.context["exclude"] == ["last"]


def test_pins_that_a_budget_cannot_be_met_with_are_named(run):
    pins = ("first=int8/channel", "last=lut3/channel")
    with pytest.raises(InfeasibleBudgetError) as raised:
        run(mz.Budget(3.4), **QUICK, pin=pins)
    assert "weight_bits 3.4 cannot be met" in str(raised.value)
    assert "without pin 'first=int8/channel' it can" in str(raised.value)


def test_several_pins_that_only_together_exceed_a_budget_are_named(run):
    pins = ("first=int8/channel", "middle=int8/channel")
    with pytest.raises(InfeasibleBudgetError, match="without the pins") as raised:
        run(mz.Budget(3.2), **QUICK, pin=pins)
    assert all(pin in str(raised.value) for pin in pins)


def test_a_budget_that_no_pin_is_to_blame_for_is_infeasible_as_ever(run):
    with pytest.raises(InfeasibleBudgetError) as raised:
        run(mz.Budget(1), **QUICK, pin=("first=int8/channel",))
    assert "pin" not in str(raised.value)


def test_a_size_says_what_excluded_layers_take_of_it(run):
    with pytest.raises(InfeasibleBudgetError, match="1,024 weights of excluded layers"):
        run(mz.Budget(size=2000), **QUICK, exclude=("last",))


def test_patterns_without_a_layer_are_refused(run):
    with pytest.raises(UsageError, match="pin 'nowhere=int8/channel': names no layer"):
        run(**QUICK, pin=("nowhere=int8/channel",))
