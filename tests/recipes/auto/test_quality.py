"""The fewest bytes that reach a signal to noise, found by measuring."""

from __future__ import annotations

import pytest

import mezzotint as mz
from mezzotint.errors import InfeasibleBudgetError, UsageError
from mezzotint.recipes.auto.quality import CLOSE, missed
from mezzotint.runtime import module_bytes
from tests.recipes.auto.denoisers import Chain, calls

QUICK = {"exchanges": False, "bias_correction": "never", "probes": 16}


@pytest.fixture
def reached(run):
    return run(mz.Budget(quality="30dB"), **QUICK)


def test_the_plan_reaches_the_goal(reached):
    context = reached.plan.context
    assert context["budget"]["quality"] == "30dB"
    assert context["measured_sqnr_db"] >= 30
    assert context["goal"]["sqnr_db"] == 30
    assert 1 < context["goal"]["plans_measured"] <= 10


def test_a_little_less_does_not(run, reached):
    size = module_bytes(reached.module)
    less = run(mz.Budget(size=int(size * (1 - 3 * CLOSE))), **QUICK)
    assert less.plan.context["measured_sqnr_db"] < 30


def test_what_cannot_be_reached_names_the_best_that_can(run):
    with pytest.raises(InfeasibleBudgetError, match="quality 90dB cannot be reached") as raised:
        run(mz.Budget(quality=90), **QUICK)
    best = float(str(raised.value).partition(" has ")[2].partition(" dB")[0])
    assert "allow floating inputs (act_bits 16)" in str(raised.value)
    assert run(mz.Budget(quality=best), **QUICK).plan.context["measured_sqnr_db"] >= best


def test_other_limits_hold_as_well(run, reached):
    size = module_bytes(reached.module)
    budget = mz.Budget(quality="30dB", size=size * 4 // 5)
    with pytest.raises(InfeasibleBudgetError, match="the best plan within all other limits"):
        run(budget, **QUICK)


def test_recipes_that_cannot_look_for_it_say_so():
    budget = mz.Budget(quality=30)
    with pytest.raises(UsageError, match="quality: recipe 'mixdq' cannot keep to one"):
        mz.quantize_module(Chain(), calls(), mz.MixDQ(metric="sqnr"), budget)


def test_a_plan_that_falls_short_in_the_end_says_so():
    assert missed(29.5, 30.0).startswith("warning: the plan reaches 29.50 dB")
    assert missed(30.0, 30.0) is None
    assert missed(None, 30.0) is None
