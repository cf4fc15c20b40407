import dataclasses

import pytest
from torch import nn

from mezzotint.errors import PlanError, ProfileError
from mezzotint.plan import Choice, Plan
from mezzotint.profiling import (
    Machine,
    check_profile,
    latency_context,
    plan_latency,
    predict,
)
from mezzotint.runtime import ConstantTokens, SplitInput
from tests.profiling.conftest import CHOICES
from tests.profiling.ticking import FLOAT


def test_a_plan_without_layers_takes_as_long_as_the_original(profile):
    assert predict(profile, Plan({})) == pytest.approx(profile.milliseconds)


def test_layers_add_up(profile):
    plan = Plan(
        {"conv_in": CHOICES[0], "conv_out": CHOICES[2], "time_embedding.linear_1": Choice()}
    )
    assert predict(profile, plan) == pytest.approx(profile.milliseconds - 1e3 * FLOAT)


def test_what_was_not_measured_is_refused(profile):
    with pytest.raises(ProfileError, match=r"layer conv_in: .* no figure for int2/channel × float"):
        predict(profile, Plan({"conv_in": Choice("int2/channel")}))
    with pytest.raises(ProfileError, match="no layer conv_im"):
        predict(profile, Plan({"conv_im": CHOICES[0]}))


def test_structure_does_not_count(profile):
    for name, structure in (
        ("conv_in", SplitInput(2)),
        ("time_embedding.linear_1", ConstantTokens(1)),
    ):
        plain = predict(profile, Plan({name: CHOICES[0]}))
        choice = CHOICES[0].with_structures(structure)
        assert predict(profile, Plan({name: choice})) == plain


def test_halves_count_by_their_share_of_the_weights(profile):
    four, eight = (predict(profile, Plan({"conv_in": each})) for each in CHOICES[:2])
    halves = Choice("int4/channel", "float", (SplitInput(1),), (("second", "int8/channel"),))
    assert four != eight
    found = predict(profile, Plan({"conv_in": halves}))
    assert found == pytest.approx(0.25 * four + 0.75 * eight)


def test_a_half_that_was_not_measured_is_refused(profile):
    halves = Choice("int4/channel", "float", (SplitInput(1),), (("second", "int2/channel"),))
    with pytest.raises(ProfileError, match=r"layer conv_in: .* no figure for int2/channel × float"):
        predict(profile, Plan({"conv_in": halves}))


def test_a_profile_fits_its_own_model_here(profile, pipe):
    check_profile(profile, pipe.unet)


@pytest.mark.parametrize("field", ["processor", "device", "torch", "mezzotint"])
def test_a_profile_of_another_machine_is_refused(profile, pipe, field):
    machine = dataclasses.replace(Machine.here(), **{field: "other"})
    with pytest.raises(ProfileError, match=f"p.json: .*{field} is other there"):
        check_profile(dataclasses.replace(profile, machine=machine), pipe.unet, "p.json")


def test_a_profile_of_another_model_is_refused(profile, pipe):
    layers = dict(profile.layers)
    lacking = dataclasses.replace(profile, layers={**layers, "extra": layers["conv_in"]})
    with pytest.raises(ProfileError, match=r"another model \(tiny\): this .* has no layer extra"):
        check_profile(lacking, pipe.unet)
    del layers["conv_in"]
    with pytest.raises(ProfileError, match="it has no layer conv_in"):
        check_profile(dataclasses.replace(profile, layers=layers), pipe.unet)


def test_other_shapes_and_dtypes_are_another_model(profile, pipe):
    pipe.unet.conv_in = nn.Conv2d(4, 8, 5, padding=2)
    with pytest.raises(ProfileError, match=r"layer conv_in is float32 \[8, 4, 3, 3\] there"):
        check_profile(profile, pipe.unet)
    with pytest.raises(ProfileError, match=r"and bfloat16 .* here"):
        check_profile(profile, pipe.unet.to("cpu").bfloat16())


def test_a_plan_remembers_its_latency(profile):
    plan = Plan({"conv_in": CHOICES[0]})
    plan = dataclasses.replace(plan, context={"latency": latency_context(profile, plan, 9.0)})
    found = plan_latency(Plan.from_dict(plan.to_dict()))
    assert found.predicted_ms == predict(profile, plan)
    assert (found.float_ms, found.limit_ms) == (profile.milliseconds, 9.0)
    assert (found.machine, found.batch) == (Machine.here().key, 1)
    assert plan_latency(Plan({})) is None


def test_a_malformed_latency_names_the_field(profile):
    with pytest.raises(PlanError, match=r"context\.latency\.batch"):
        plan_latency(Plan({}, context={"latency": {**latency_context(profile, Plan({}), 9.0),
                                                   "batch": "many"}}))  # fmt: skip
