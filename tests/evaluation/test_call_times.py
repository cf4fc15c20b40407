"""One denoiser call beside the floating one's, and what is said of it."""

from __future__ import annotations

from dataclasses import replace

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
    line, verdict = times(torch=0.7).lines
    assert line.startswith(
        "one denoiser call takes 0.70x the floating one's time (7.0 ms, 10.0 ms)"
    )
    assert verdict == (
        "note: on this machine the result is faster than the floating model with engine torch "
        "(0.70x its time, timed; cpu, 2 threads)"
    )


def test_a_slower_result_says_so_and_names_what_to_do():
    verdict = times(torch=1.3).verdict
    assert "slower than the floating model with engine torch (1.30x" in verdict
    assert "--latency" in verdict


@pytest.mark.parametrize("ratio", [0.96, 1.0, 1.04])
def test_few_repeats_do_not_tell_small_differences(ratio):
    assert "about as fast as the floating model" in times(torch=ratio).verdict


def test_of_several_engines_the_fastest_is_named():
    *lines, note = times(torch=0.9, openvino=0.5).lines
    assert len(lines) == 2
    assert note.endswith('; choose engine="openvino" (0.50x)')


def test_an_engine_that_is_slower_as_well_is_called_so():
    verdict = times(torch=1.9, openvino=1.5).verdict
    assert verdict.endswith('; choose engine="openvino" (1.50x), which is slower as well')


def test_an_engine_that_was_not_timed_is_named_where_torch_is_slow():
    slow, quick = (replace(times(torch=ratio), untimed=("openvino",)) for ratio in (1.7, 0.7))
    assert 'choose engine="openvino", which compiles' in slow.verdict
    assert 'or "auto"' in slow.verdict
    assert "openvino" not in quick.verdict


def test_why_no_other_engine_can_be_chosen_is_told():
    slow = replace(times(torch=1.7), refused={"openvino": "is not installed; run `pip`"})
    assert "; openvino is not installed; run `pip`; it saves bytes" in slow.verdict


def test_an_estimate_is_called_one():
    assert "estimated from its layers" in (
        replace(times(torch=1.7), source="estimated from its layers").verdict
    )
