"""One denoiser call beside the floating one's, and what is said of it."""

from __future__ import annotations

import pytest

import mezzotint as mz
from mezzotint.evaluation import CallTimes, EngineTime, able_engines, call_times
from tests.models import tiny


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    return mz.load(tiny.save_few_step(tmp_path_factory.mktemp("times") / "tiny"))


def test_both_denoisers_are_timed_on_the_same_call(pipe):
    plan = mz.uniform_plan(pipe.unet, weight_bits=4, act_bits=8)
    result = mz.apply(pipe, plan)
    assert "torch" in able_engines(result.pipeline)
    found = call_times(pipe, result.pipeline, repeats=1)
    assert found.fastest.engine == "torch"
    assert found.fastest.milliseconds > 0
    assert found.floating_ms > 0
    assert found.to_dict()["packed"][0]["ratio"] == found.fastest.ratio


def times(**ratios: float) -> CallTimes:
    packed = [EngineTime(name, 10 * ratio, ratio) for name, ratio in ratios.items()]
    return CallTimes(10.0, tuple(sorted(packed, key=lambda each: each.ratio)), "cpu", 2)


def test_the_ratio_is_told_in_any_case():
    (line,) = times(torch=0.7).lines
    assert line.startswith(
        "one denoiser call takes 0.70x the floating one's time (7.0 ms, 10.0 ms)"
    )


def test_a_slower_result_says_so_and_names_what_to_do():
    *_, note = times(torch=1.3).lines
    assert "slower than the floating model" in note
    assert "--latency" in note


def test_of_several_engines_the_fastest_is_named():
    *lines, note = times(torch=0.9, openvino=0.5).lines
    assert len(lines) == 2
    assert 'engine="openvino"' in note
