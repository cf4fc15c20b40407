"""Inputs take part in the program: 8 bits for a share of the products, floating where it pays."""

from __future__ import annotations

from fractions import Fraction
from functools import partial

import pytest
import torch

import mezzotint as mz
from mezzotint.errors import InfeasibleBudgetError, UsageError
from mezzotint.measuring import relative_noise
from tests.recipes.auto.denoisers import Chain, calls

LAYERS = ("first", "peaked", "middle", "last")


@pytest.fixture
def run(run):
    """Without smoothing, which would leave no input in trouble."""
    return partial(run, smoothing=False)


def noise(result: mz.ModuleResult) -> float:
    """Of calls that were not recorded."""
    module, noises = Chain().eval(), []
    with torch.no_grad():
        for args, _ in calls(8)[4:]:
            noises.append(relative_noise(module(*args), result.module(*args)))
    return float(torch.cat(noises).mean())


def floating(plan: mz.Plan) -> set[str]:
    return {name for name, choice in plan.choices.items() if choice.activation == "float"}


def test_a_layer_with_a_channel_of_a_thousand_deviations_keeps_its_input_floating(run):
    found = run(act_share=0.75)
    assert floating(found.plan) == {"peaked"}
    everywhere = run(act_share=1)
    assert floating(everywhere.plan) == set()
    assert noise(found) < 0.25 * noise(everywhere)


def test_the_plan_says_which_inputs_stay_floating_and_why(run):
    reasons = run(act_share=0.75).plan.reasons
    assert set(reasons) == {"peaked"}
    assert "input stays floating: peak of " in reasons["peaked"]
    assert "standard deviations" in reasons["peaked"]


@pytest.mark.parametrize("share", [0, 0.25, 0.3, 0.5, 0.75, 0.76, 1])
def test_the_share_is_kept_exactly(run, share):
    plan = run(mz.Budget(9), act_share=share, sensitivity="probes", exchanges=False).plan
    quantized = Fraction(len(LAYERS) - len(floating(plan)), len(LAYERS))
    assert quantized >= Fraction(str(share))


def test_the_usual_share_is_nearly_all(run):
    assert floating(run().plan) == set()  # each layer has a quarter of the products


def test_a_share_out_of_reach_names_the_nearest(run):
    with pytest.raises(InfeasibleBudgetError, match=r"act_share 0\.5 cannot be met.* at most 0 of"):
        run(inputs=("float",), act_share=0.5)
    with pytest.raises(UsageError, match="act_share: is 2"):
        run(act_share=2.0)


def test_all_inputs_stay_floating_at_16_bits(run):
    assert floating(run(mz.Budget(5, act_bits=16)).plan) == set(LAYERS)


def test_one_activation_format_can_be_asked_for_everywhere(run):
    plan = run(activation="uint8/token").plan
    assert {choice.activation for choice in plan.choices.values()} == {"uint8/token"}


def test_the_inputs_to_choose_from_can_be_given(run):
    plan = run(inputs=("int8/token", "float"), act_share=0.5).plan
    assert {choice.activation for choice in plan.choices.values()} == {"int8/token", "float"}
    with pytest.raises(UsageError, match="leave one of them out"):
        run(inputs=("float",), activation="float")
    with pytest.raises(UsageError, match="inputs: unknown activation format 'int8'"):
        run(inputs=("int8",))


class TestStaticInputs:
    """One range for all calls, which may leave the rarest values out."""

    def test_each_layer_takes_the_clip_of_least_noise(self, run):
        one = {"inputs": ("uint4/tensor",), "act_share": 1, "sensitivity": "probes"}
        losses = {
            clips: {
                name: min(each["input"] for each in layer.values())
                for name, layer in run(**one, clips=clips).measurements.items()
            }
            for clips in (("full",), ("mse",), ("full", "mse"))
        }
        assert losses["full", "mse"] == {
            name: min(losses["full",][name], losses["mse",][name]) for name in LAYERS
        }
        plan = run(**one, clips=("full", "mse"), exchanges=False).plan
        assert {
            name: "mse" if losses["mse",][name] < losses["full",][name] else "full"
            for name in LAYERS
        } == {name: plan.encoding_of(name).clip for name in LAYERS}
        assert plan.encodings

    def test_without_probes_all_take_the_first(self, run):
        found = run(inputs=("uint8/tensor",), act_share=1, sensitivity="measured", clips=("mse",))
        assert found.plan.encoding.clip == "mse"

    def test_more_than_one_static_format_is_refused(self, run):
        with pytest.raises(UsageError, match="more than one has static ranges"):
            run(inputs=("uint8/tensor", "int8/tensor"))


def test_floating_inputs_alone_ask_for_no_share(run):
    plan = run(inputs=("float",)).plan
    assert {choice.activation for choice in plan.choices.values()} == {"float"}


class TestWarning:
    """No plan is worse for its inputs than it need be without a word."""

    def test_noise_of_inputs_that_dominates_comes_with_a_warning(self, run):
        (note,) = [note for note in run(act_share=1).plan.context["notes"] if "warning" in note]
        assert "times as noisy as the same weights with floating inputs" in note
        assert "most comes from peaked (peak of " in note
        assert "--act-share" in note
        assert "--act-bits 16" in note

    def test_where_it_is_left_floating_there_is_none(self, run):
        plan = run(mz.Budget(3), act_share=0.75).plan
        assert not [note for note in plan.context["notes"] if "warning" in note]

    def test_probes_alone_warn_as_well(self, run):
        plan = run(act_share=1, sensitivity="probes", exchanges=False).plan
        assert [note for note in plan.context["notes"] if "warning" in note]

    def test_the_plan_says_what_its_inputs_cost(self, run):
        assert run(act_share=1).plan.context["inputs_cost_db"] > 6
        assert "inputs_cost_db" not in run(activation="float").plan.context
