"""Faster or slower than the floating model, told before anybody has to find out."""

import dataclasses

import pytest
from diffusers import UNet2DConditionModel

import mezzotint as mz
from mezzotint.errors import UsageError
from mezzotint.evaluation import call_times
from mezzotint.profiling import Machine
from mezzotint.speed import expected, speed
from mezzotint.speed.floating import floating_bytes, stand_in
from tests.profiling.ticking import seconds, ticking


def told(pipe, paces, **options):
    return speed(pipe, clock=paces.clock, **options)


def test_beside_the_original_both_are_timed(packed, floating, paces):
    found = told(packed, paces, original=floating)
    assert (found.floating_ms, found.source) == (4000.0, "timed")
    assert [(each.engine, each.ratio) for each in found.packed] == [("torch", 2.0)]


def test_what_was_timed_is_told_later_without_the_original(packed, floating, paces):
    first = told(packed, paces, original=floating)
    paces.stop()
    assert told(packed, paces) == first


def test_every_engine_is_timed_where_that_is_asked_for(packed, floating, paces):
    paces.engine("quick", 1.0)
    found = told(packed, paces, original=floating, every_engine=True)
    assert [(each.engine, each.ratio) for each in found.packed] == [("quick", 0.25), ("torch", 2.0)]
    paces.stop()
    assert told(packed, paces).packed == found.packed


def test_of_a_small_denoiser_a_floating_copy_is_timed(packed, paces):
    paces.seconds |= {"torch": 0.5, "floating": 2.0}
    found = told(packed, paces)
    assert (found.fastest.ratio, found.source) == (0.25, "timed")


def test_of_a_large_one_its_layers_are(packed, monkeypatch):
    monkeypatch.setattr(expected, "_SMALL_BYTES", 0)
    with ticking() as clock:
        found = speed(packed, clock=clock)
        exact = call_times(stand_in(packed), packed, repeats=1, clock=clock)
    assert found.source == "estimated from its layers"
    assert found.floating_ms == pytest.approx(exact.floating_ms)
    assert found.fastest.ratio == pytest.approx(exact.fastest.ratio)
    assert found.fastest.ratio < 1


def test_a_slow_one_is_large(packed):
    def slow(module):
        return seconds(module) + (2.5 if isinstance(module, UNet2DConditionModel) else 0.0)

    with ticking(slow) as clock:
        assert speed(packed, clock=clock).source == "estimated from its layers"


def test_an_estimate_is_kept_until_it_is_measured(packed, floating, monkeypatch):
    monkeypatch.setattr(expected, "_SMALL_BYTES", 0)
    with ticking() as clock:
        first = speed(packed, clock=clock)
        clock.most_readings = 0
        assert speed(packed, clock=clock) == first
    with ticking(lambda module: 2 * seconds(module)) as clock:
        assert speed(packed, original=floating, clock=clock).source == "timed"
        assert speed(packed, clock=clock).source == "timed"


def latency(machine: str) -> dict[str, object]:
    return {
        "predicted_ms": 6.0,
        "float_ms": 8.0,
        "limit_ms": 7.0,
        "batch": 1,
        "machine": machine,
        "processor": "x",
        "device": "cpu",
    }


def with_latency(floating, plan, machine):
    timed = dataclasses.replace(plan, context={"latency": latency(machine)})
    return mz.apply(floating, timed).pipeline


def test_a_plan_with_a_latency_of_this_machine_is_not_measured(floating, plan, paces):
    paces.stop()
    found = told(with_latency(floating, plan, Machine.here().key), paces)
    assert (found.fastest.ratio, found.source) == (0.75, "predicted by a profile")


def test_a_latency_of_another_machine_tells_nothing(floating, plan, paces):
    paces.seconds["torch"] = 0.5
    assert told(with_latency(floating, plan, "0" * 12), paces).source == "timed"


def test_engines_that_nobody_has_timed_are_named(packed, floating, paces):
    paces.engine("quick", 1.0)
    paces.engine("proud", 1.0, refusal="computes on the moon")
    found = told(packed, paces, original=floating)
    assert found.untimed == ("quick",)
    assert found.refused == {"proud": "computes on the moon"}
    paces.stop()
    assert told(packed, paces) == found


def test_a_pipeline_under_an_engine_is_told_of_torch(packed, floating, paces):
    paces.engine("quick", 1.0)
    served = mz.with_engine(packed, "quick")
    assert told(served, paces, original=floating).fastest.ratio == 2.0


def test_a_result_tells_it_itself(packed, floating, plan):
    verdict = mz.Result(packed, plan).speed(floating).verdict
    assert verdict.startswith("on this machine the result is ")


def test_a_floating_pipeline_is_refused(floating):
    with pytest.raises(UsageError, match="no denoiser of it is packed"):
        speed(floating)


class TestStandIn:
    def test_nothing_of_it_is_packed(self, packed, floating):
        found = stand_in(packed).unet
        assert type(found) is type(floating.unet)
        shapes = {name: each.shape for name, each in floating.unet.named_parameters()}
        assert {name: each.shape for name, each in found.named_parameters()} == shapes

    def test_the_packed_one_is_left_alone(self, packed):
        before = floating_bytes(packed)
        stand_in(packed)
        assert floating_bytes(packed) == before > 0

    def test_its_bytes_are_those_of_the_floating_weights(self, floating, plan, packed):
        weights = (floating.unet.get_submodule(name).weight for name in plan.quantized)
        assert floating_bytes(packed) == sum(each.nbytes for each in weights)
