"""The engine `auto`: measured, kept, told."""

import pytest

import mezzotint as mz
from mezzotint._progress import listening
from mezzotint.engines import engine_of
from mezzotint.errors import ModelError
from mezzotint.models import generate
from mezzotint.speed import fastest_engine, speed, with_engine


def fastest(pipe, paces, **options):
    served, chosen = fastest_engine(pipe, clock=paces.clock, **options)
    assert engine_of(served.unet).name == chosen.name
    return chosen


def test_the_fastest_engine_is_taken_and_told(packed, paces):
    paces.engine("slow", 16.0)
    paces.engine("quick", 2.0)
    lines = []
    with listening(lines.append):
        served = with_engine(packed, "auto", clock=paces.clock)
    assert engine_of(served.unet).name == "quick"
    (line,) = lines
    assert line == (
        "engine auto: quick takes 0.25x the time of torch (2000.0 ms, 8000.0 ms), "
        "0.12x the time of slow (2000.0 ms, 16000.0 ms)"
    )
    assert generate(served, mz.Sampling("owl", steps=1), progress=False).any()


def test_torch_is_taken_where_it_is_the_fastest(packed, paces):
    paces.engine("slow", 16.0)
    assert fastest(packed, paces).name == "torch"


def test_an_engine_that_fails_drops_out_with_the_reason(packed, paces, cache):
    broken = paces.engine("broken", 1.0, calls=0)
    chosen = fastest(packed, paces)
    assert chosen.name == "torch"
    assert chosen.line == "engine auto: torch; broken is tired"
    again = fastest(packed, paces)
    (file,) = cache.iterdir()
    assert again.left_out["broken"].startswith("failed before (is tired); delete ")
    assert str(file) in again.left_out["broken"]
    assert broken.attached == 1


def test_engines_that_refuse_leave_nothing_to_time(packed, paces):
    paces.engine("proud", 1.0, refusal="computes on the moon")
    paces.stop()
    chosen = fastest(packed, paces)
    assert chosen.line == "engine auto: torch; proud computes on the moon"


def test_where_torch_fails_the_others_are_compared_and_nothing_is_kept(packed, paces, cache):
    paces.engine("slow", 16.0)
    paces.engine("quick", 2.0)
    paces.engine("torch", 8.0, calls=1)  # one is recorded
    chosen = fastest(packed, paces)
    assert chosen.name == "quick"
    assert chosen.left_out == {"torch": "is tired"}
    assert not cache.exists()


def test_where_all_fail_the_reasons_are_told(packed, paces):
    paces.engine("broken", 1.0, calls=0)
    paces.engine("torch", 8.0, calls=1)
    with pytest.raises(ModelError, match=r"\(torch: is tired; broken: is tired\)"):
        fastest(packed, paces)


def test_what_is_known_is_not_measured_again(packed, paces):
    quick = paces.engine("quick", 2.0)
    first = fastest(packed, paces)
    paces.stop()
    assert fastest(packed, paces) == first
    assert quick.attached == 2


def test_another_version_is_measured_anew(packed, paces):
    quick = paces.engine("quick", 2.0)
    fastest(packed, paces)
    quick.version, paces.seconds["quick"] = "2", 32.0
    assert fastest(packed, paces).name == "torch"


@pytest.mark.parametrize(
    "other",
    [{"batch": 2}, {"sampling": mz.Sampling("owl", call_kwargs={"width": 32, "height": 16})}],
    ids=["images at once", "size"],
)
def test_another_shape_is_measured_by_itself(packed, paces, other):
    paces.engine("quick", 2.0)
    fastest(packed, paces)
    paces.seconds["quick"] = 32.0
    assert fastest(packed, paces, **other).name == "torch"
    assert fastest(packed, paces).name == "quick"


def test_another_plan_is_measured_by_itself(floating, packed, paces):
    paces.engine("quick", 2.0)
    fastest(packed, paces)
    paces.seconds["quick"] = 32.0
    other = mz.apply(floating, mz.uniform_plan(floating.unet, weight_bits=4, act_bits=8)).pipeline
    assert fastest(other, paces).name == "torch"


def test_the_saved_pipeline_is_the_same_to_it(packed, paces, tmp_path):
    paces.engine("quick", 2.0)
    fastest(packed, paces)
    paces.stop()
    plan = packed.unet.hf_quantizer.plan
    folder = mz.Result(packed, plan).save(tmp_path / "saved")
    assert engine_of(mz.load(folder, engine="auto").unet).name == "quick"


def test_a_damaged_file_is_written_anew(packed, paces, cache):
    paces.engine("quick", 2.0)
    fastest(packed, paces)
    (file,) = cache.iterdir()
    file.write_text('{"milliseconds": -1}')
    assert fastest(packed, paces).name == "quick"
    paces.stop()
    assert fastest(packed, paces).name == "quick"


def test_a_pipeline_that_cannot_be_run_gets_the_first_engine_that_is_able(packed, paces):
    paces.engine("slow", 16.0)
    impossible = mz.Sampling("owl", call_kwargs={"colour": "red"})
    chosen = fastest(packed, paces, sampling=impossible)
    assert chosen.name == "slow"
    assert chosen.line.startswith("engine auto: slow; not timed: ")


def test_a_floating_pipeline_keeps_its_engine(floating, paces):
    paces.engine("quick", 2.0)
    paces.stop()
    assert with_engine(floating, "auto", clock=paces.clock).unet is floating.unet


def test_times_of_torch_beside_the_original_are_kept_for_it(packed, floating, paces):
    paces.engine("quick", 2.0)
    speed(packed, original=floating, every_engine=True, clock=paces.clock)
    paces.stop()
    assert fastest(packed, paces).name == "quick"


def test_an_engine_that_is_named_is_not_timed(packed, paces):
    paces.engine("slow", 16.0)
    paces.stop()
    assert engine_of(with_engine(packed, "slow", clock=paces.clock).unet).name == "slow"
