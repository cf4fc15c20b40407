"""Faster or slower, before a plan is searched for."""

import pytest

import mezzotint as mz
from mezzotint.errors import ModelError
from mezzotint.profiling import Timer, candidates, profile_pipeline
from mezzotint.speed import foretold_speed
from tests.models import several
from tests.profiling.ticking import seconds, ticking


def foretold(pipe, clock, **budget):
    timer = Timer(repeats=1, most=1, clock=clock)
    return foretold_speed(pipe, mz.Budget(**budget), timer=timer)


def test_fewer_bits_that_take_less_time_are_foretold_so(floating):
    with ticking() as clock:
        four, eight = (foretold(floating, clock, weight_bits=bits) for bits in (4, 8))
    assert four.fastest.ratio < eight.fastest.ratio < 1
    assert four.source == "estimated from its layers"
    assert four.verdict.startswith(
        "on this machine a result of int4/channel × int8/token in every layer is faster than"
    )


def test_a_slower_result_is_foretold_with_the_engine_to_choose(floating, paces):
    paces.engine("quick", 1.0)
    with ticking(
        lambda module: 8 * seconds(module) if packed(module) else seconds(module)
    ) as clock:
        found = foretold(floating, clock)
    assert found.fastest.ratio > 1
    assert 'choose engine="quick"' in found.verdict


def packed(module):
    return hasattr(module, "choice")


def test_the_profile_of_this_machine_is_taken(floating):
    choices = candidates(["int4/channel"], ["int8/token"])
    with ticking() as clock:
        profile_pipeline(floating, choices=choices, timer=Timer(1, 1, clock=clock))
        clock.most_readings = 0
        assert foretold(floating, clock).source == "predicted by a profile"


@pytest.mark.parametrize(
    ("budget", "choice"),
    [
        ({"weight_bits": 3.5, "act_bits": 16}, "int3/channel × float in every layer"),
        ({"weight_bits": 12}, "int8/channel × int8/token in every layer"),
        ({"size": 1}, "int1/channel × int8/token in every layer"),
    ],
)
def test_the_average_of_a_budget_is_one_format(floating, budget, choice):
    with ticking() as clock:
        assert choice in foretold(floating, clock, **budget).verdict


def test_a_budget_without_bits_foretells_nothing(floating):
    with ticking() as clock:
        assert foretold(floating, clock, quality="30dB") is None


def test_of_several_denoisers_nothing_is_told(tmp_path):
    pipe = mz.load(several.save_wan(tmp_path / "wan"))
    with ticking() as clock, pytest.raises(ModelError, match="several denoisers"):
        foretold(pipe, clock)
