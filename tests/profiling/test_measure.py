import pytest

from mezzotint.plan import Choice, uniform_plan
from mezzotint.profiling import Timer, Work, profile_pipeline
from mezzotint.profiling.within import representatives
from mezzotint.runtime import executions, packed_copy
from tests.profiling.conftest import CHOICES
from tests.profiling.ticking import FLOAT, NORM, ticking


def test_figures_are_milliseconds_by_the_clock(profile):
    for layer in profile.layers.values():
        assert layer.floating == pytest.approx(1e3 * FLOAT)
        shares = {choice: figure.milliseconds / 1e3 / FLOAT for choice, figure in
                  layer.figures.items()}  # fmt: skip
        assert shares == {
            Choice(): pytest.approx(1),
            CHOICES[0]: pytest.approx(1 / 2),
            CHOICES[1]: pytest.approx(1),
            CHOICES[2]: pytest.approx(1 / 2),
            CHOICES[3]: pytest.approx(1 / 2),
        }


def test_the_rest_is_what_no_layer_takes(profile, pipe):
    norms = sum(type(module).__name__ == "GroupNorm" for module in pipe.unet.modules())
    assert norms > 0
    assert profile.rest == pytest.approx(1e3 * NORM * norms)
    assert profile.milliseconds == pytest.approx(1e3 * (NORM * norms + FLOAT * len(profile.layers)))


def test_layers_are_those_that_can_be_packed(profile, pipe):
    plan = uniform_plan(pipe.unet, weight_bits=8)
    assert set(profile.layers) == set(plan.choices)


def test_packed_layers_really_run(profile, clock):
    assert set(clock.ran) == set(CHOICES)


def test_equal_layers_are_timed_once(profile, clock):
    pieces = {words for layer in profile.layers.values() for words in layer.runs}
    assert len(pieces) < len(profile.layers)
    # One round to warm up, one timed; and as often in whole denoisers, of these choices.
    whole = dict.fromkeys(representatives(CHOICES), 2 * len(profile.layers))
    assert clock.ran == {choice: 2 * len(pieces) + whole.get(choice, 0) for choice in CHOICES}


def test_kernels_are_those_of_the_registry(profile, pipe):
    plan = uniform_plan(pipe.unet, weight_bits=8, act_bits=8)
    for each in executions(packed_copy(pipe.unet, plan)):
        assert profile.layers[each.layer].figures[each.choice].kernel == each.kernel


def test_a_larger_batch_is_other_work(pipe, timer, tmp_path):
    batches = [
        profile_pipeline(pipe, Work(n), choices=CHOICES[:1], cache=tmp_path / f"{n}", timer=timer)
        for n in (1, 3)
    ]
    runs = [profile.layers["conv_in"].runs[0] for profile in batches]
    assert "input 1×4×8×8" in runs[0]
    assert "input 3×4×8×8" in runs[1]
    assert [profile.batch for profile in batches] == [1, 3]


def test_a_choice_that_a_layer_cannot_take_is_left_out(pipe, timer, tmp_path):
    pipe.unet.conv_out.padding_mode = "circular"
    found = profile_pipeline(pipe, choices=CHOICES, cache=tmp_path / "cache", timer=timer)
    assert list(found.layers["conv_out"].figures) == [Choice()]
    assert found.choices == (Choice(),)


def test_layers_are_weighed_against_the_whole_call_in_the_same_rounds(pipe, tmp_path):
    with ticking() as clock:

        def slower_after_the_whole_call() -> float:
            # Four readings find the count; two rounds of two functions take eight.
            clock()
            return clock.now * (1 if clock.readings <= 12 else 5)

        timer = Timer(repeats=1, most=1, clock=slower_after_the_whole_call)
        found = profile_pipeline(pipe, choices=CHOICES, cache=tmp_path / "cache", timer=timer)
    assert found.layers["conv_in"].floating == pytest.approx(1e3 * FLOAT)
    assert found.rest == pytest.approx(
        found.milliseconds - 1e3 * FLOAT * len(found.layers), abs=1e-9
    )
