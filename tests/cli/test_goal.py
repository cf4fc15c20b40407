"""`mezzotint quantize --goal`."""

from __future__ import annotations

import json

import pytest

from mezzotint.checkpoint import read_plan
from mezzotint.cli._goal import limits_of
from mezzotint.errors import UsageError

QUICK = ("--formats", "int3/channel,int5/channel,int8/channel", "--no-exchanges")
QUICK += ("--probes", 8, "--regret", 1e9, "--bias-correction", "never")


def test_quality_is_reached(run, model, tmp_path):
    options = ("--goal", "quality=28dB", "--json", *QUICK)
    result = run("quantize", model, "-o", tmp_path / "out", *options)
    assert result.exit_code == 0, result.stderr
    assert read_plan(tmp_path / "out").context["measured_sqnr_db"] >= 28
    times = json.loads(result.stdout)["call_times"]
    assert [each["engine"] for each in times["packed"]] == ["torch"]


def test_a_quality_that_cannot_be_reached_names_the_best(fails, model, tmp_path):
    message = fails("quantize", model, "-o", tmp_path / "out", "--goal", "quality=99dB", *QUICK)
    assert "quality 99dB cannot be reached: the best plan" in message


def test_memory_leaves_inputs_as_they_are(run, model, tmp_path):
    result = run("quantize", model, "-o", tmp_path / "out", "--goal", "memory", *QUICK)
    plan = read_plan(tmp_path / "out")
    assert {choice.activation for choice in plan.choices.values()} == {"float"}
    assert "x the floating one's time" in result.stdout
    expected, *_ = result.stderr.splitlines()
    assert expected.startswith("expected: on this machine a result of int4/channel × ")


def test_speed_times_every_engine_that_is_installed(run, model, tmp_path):
    options = ("--goal", "speed", "--json", *QUICK)
    result = run("quantize", model, "-o", tmp_path / "out", *options)
    packed = json.loads(result.stdout)["call_times"]["packed"]
    assert {each["engine"] for each in packed} == {"torch", "openvino"}
    assert [each["ratio"] for each in packed] == sorted(each["ratio"] for each in packed)


@pytest.mark.parametrize(
    ("goal", "given", "message"),
    [
        ("beauty", {}, "give quality=35dB, memory or speed"),
        ("memory", {"act_bits": 8.0}, "memory means --act-bits 16, and 8 are given"),
        ("speed", {"act_bits": 16.0}, "speed means --act-bits 8, and 16 are given"),
    ],
)
def test_goals_that_contradict_the_budget_are_refused(goal, given, message):
    with pytest.raises(UsageError, match=message):
        limits_of(goal, given)


def test_without_a_goal_the_budget_is_as_given():
    assert limits_of(None, {"size": "6MB"}) == {"size": "6MB"}
