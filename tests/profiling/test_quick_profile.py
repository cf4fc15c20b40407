"""Profiles that take some milliseconds, or none where there is a careful one."""

import pytest

import mezzotint as mz
from mezzotint.plan import Choice
from mezzotint.profiling import Timer, predict, profile_pipeline, quick_profile
from tests.profiling.conftest import CHOICES
from tests.profiling.ticking import Clock

CHOICE = CHOICES[2]


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("MEZZOTINT_CACHE", str(tmp_path))
    return tmp_path / "profiles"


def stopped() -> Timer:
    """A timer whose clock must not be read."""
    clock = Clock()
    clock.most_readings = 0
    return Timer(repeats=1, most=1, clock=clock)


def test_an_estimate_says_what_a_profile_does(pipe, timer, cache, tmp_path):
    found, careful = quick_profile(pipe, (CHOICE,), timer=timer)
    assert not careful
    exact = profile_pipeline(pipe, choices=(CHOICE,), cache=tmp_path / "exact", timer=timer)
    plan = mz.Plan(dict.fromkeys(exact.layers, CHOICE))
    assert found.milliseconds == exact.milliseconds
    assert predict(found, plan) == pytest.approx(predict(exact, plan))


def test_no_whole_denoiser_is_packed_for_it(pipe, timer, clock):
    quick_profile(pipe, (CHOICE,), timer=timer)
    pieces = clock.ran[CHOICE]
    profile_pipeline(pipe, choices=(CHOICE,), timer=timer)
    assert clock.ran[CHOICE] > 2 * pieces


def test_it_is_kept(pipe, timer):
    first = quick_profile(pipe, (CHOICE,), timer=timer)
    assert quick_profile(pipe, (CHOICE,), timer=stopped()) == first


def test_a_careful_profile_is_taken_where_there_is_one(pipe, timer):
    careful = profile_pipeline(pipe, choices=CHOICES, timer=timer)
    found, measured = quick_profile(pipe, (CHOICE,), timer=stopped())
    assert measured
    assert found.milliseconds == careful.milliseconds
    assert found.layers["conv_in"].figures[CHOICE] == careful.layers["conv_in"].figures[CHOICE]


def test_one_without_the_choice_will_not_do(pipe, timer):
    profile_pipeline(pipe, choices=CHOICES[:1], timer=timer)
    assert not quick_profile(pipe, (Choice("int2/channel"),), timer=timer)[1]


def test_an_estimate_is_no_profile(pipe, timer, clock):
    quick_profile(pipe, (CHOICE,), timer=timer)
    before = clock.readings
    profile_pipeline(pipe, choices=(CHOICE,), timer=timer)
    assert clock.readings > before


def test_a_damaged_profile_counts_for_none(pipe, timer, cache):
    profile_pipeline(pipe, choices=(CHOICE,), timer=timer)
    (path,) = cache.glob("*.jsonl")
    path.write_text("nonsense\n")
    assert not quick_profile(pipe, (CHOICE,), timer=timer)[1]
