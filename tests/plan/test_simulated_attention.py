"""Rounding of attention's operands in plans: as text, as JSON, in tables."""

import json

import pytest

from mezzotint.errors import FormatError, PlanError
from mezzotint.plan import Choice, Plan, SimulatedAttention, calibration_diff

ALL_8 = SimulatedAttention(8, 8, 8, 8)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("8", ALL_8),
        ("6", SimulatedAttention(6, 6, 6, 6)),
        ("q8,k8,v8,softmax8", ALL_8),
        ("softmax6,v8", SimulatedAttention(v=8, softmax=6)),
    ],
)
def test_texts_that_users_write(text, meant):
    assert SimulatedAttention.parse(text) == meant
    assert SimulatedAttention.parse(str(meant)) == meant


@pytest.mark.parametrize("text", ["", "16", "9", "1", "q", "q8,q6", "q8 k8", "qk8", "out8", "q8,"])
def test_other_texts_are_refused(text):
    with pytest.raises(FormatError, match="simulated_attention"):
        SimulatedAttention.parse(text)


def test_nothing_is_no_rounding():
    with pytest.raises(FormatError, match="leave it out"):
        SimulatedAttention()


def test_a_plan_keeps_it(tmp_path):
    plan = Plan({}, simulated_attention=SimulatedAttention(q=8, softmax=6))
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan
    assert json.loads((tmp_path / "plan.json").read_text())["simulated_attention"] == {
        "q": 8,
        "softmax": 6,
    }


def test_plans_without_it_say_nothing_of_it():
    assert "simulated_attention" not in Plan({}).to_dict()


def test_tables_call_it_simulated():
    plan = Plan({"a": Choice("int4/channel")}, simulated_attention=ALL_8)
    for told in (plan, Plan({}, simulated_attention=ALL_8)):
        words = "".join(str(told).split())  # which a narrow table breaks
        assert "attention,simulated:q8,k8,v8,softmax8" in words


def test_a_difference_of_plans_names_it():
    assert calibration_diff(Plan({}, simulated_attention=ALL_8), Plan({})) == {
        "simulated_attention": ({"q": 8, "k": 8, "v": 8, "softmax": 8}, None)
    }


@pytest.mark.parametrize(
    "value", [{}, {"q": 9}, {"q": 1}, {"q": "8"}, {"out": 8}, [8]], ids=json.dumps
)
def test_bad_json_names_the_field(value):
    with pytest.raises(PlanError, match=r"mine\.json.*simulated_attention"):
        Plan.from_dict({"version": 3, "layers": {}, "simulated_attention": value}, "mine.json")


@pytest.mark.parametrize("version", [1, 2])
def test_older_versions_have_none(version):
    value = {"version": version, "layers": {}, "simulated_attention": {"q": 8}}
    with pytest.raises(PlanError, match="goes with version 3"):
        Plan.from_dict(value)
