import json

import pytest

import mezzotint as mz
from mezzotint.checkpoint import read_plan
from mezzotint.plan import Choice
from mezzotint.profiling import Profile, Timer, predict, profile_pipeline
from tests.profiling.ticking import ticking

QUICK = ("--repeats", 1, "--formats", "int2/channel,int8/channel", "--activations")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Nothing is left in the user's own folder."""
    monkeypatch.setenv("MEZZOTINT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def profile(model, tmp_path_factory):
    """A profile by made-up figures: narrow weights are fast."""
    path = tmp_path_factory.mktemp("profile") / "profile.json"
    options = mz.Auto()
    choices = [Choice(w, a) for w in options.formats for a in ("float", "int8/token")]
    with ticking() as clock:
        timer = Timer(repeats=1, most=1, clock=clock)
        found = profile_pipeline(
            mz.load(model), choices=choices, cache=path.with_name("cache"), timer=timer
        )
    found.save(path)
    return path


def test_profile_prints_tables_and_writes_json(run, model, tmp_path):
    result = run("profile", model, *QUICK, "float,int8/token", "-o", tmp_path / "p.json")
    assert result.exit_code == 0
    assert "slowest of" in result.stdout
    assert "int8/channel × int8/token" in result.stdout
    found = Profile.load(tmp_path / "p.json")
    assert found.choices == (
        Choice(),
        *(Choice(f"int{bits}/channel", a) for a in ("float", "int8/token") for bits in (2, 8)),
    )
    assert all(layer.floating > 0 for layer in found.layers.values())


def test_all_weight_formats_of_the_default_recipe_are_measured(run, model):
    command = ("profile", model, "--repeats", 1, "--activations", "float", "--json")
    found = Profile.from_dict(json.loads(run(*command).stdout))
    assert {choice.weight for choice in found.choices} == {"float", *mz.Auto.formats}


def test_profile_prints_json(run, model):
    found = json.loads(run("profile", model, *QUICK, "float", "--batch", 2, "--json").stdout)
    assert Profile.from_dict(found).batch == 2


def test_a_second_run_takes_what_was_measured_unless_told_otherwise(run, model, tmp_path):
    command = ("profile", model, *QUICK, "float", "--cache", tmp_path / "c.jsonl", "--json")
    first = run(*command).stdout
    assert run(*command).stdout == first
    assert run(*command, "--fresh").stdout != first


def test_unknown_formats_fail(fails, model):
    assert "nonsense" in fails("profile", model, "--formats", "nonsense")


def test_a_latency_shapes_the_plan_and_is_shown(run, model, profile, tmp_path):
    output = tmp_path / "fast"
    brief = ("--probes", 8, "--regret", 1e9, "--no-exchanges", "--calls", 1)
    command = ("quantize", model, "-o", output, "--latency", "0.5x", "--profile", profile)
    shown = run(*command, *brief).stdout
    assert "Latency of one denoiser call" in shown
    assert "0.500x" in shown
    plan, found = read_plan(output), Profile.load(profile)
    assert plan.context["budget"]["latency"] == "0.5x"
    assert plan.context["budget"]["weight_bits"] is None
    assert predict(found, plan) <= 0.5 * found.milliseconds + 1e-6
    shown = run("plan", "show", output).stdout
    assert f"{predict(found, plan):.3f}" in shown
    assert found.machine.key in shown


def test_plans_without_a_latency_show_none(run, quantized):
    assert "Latency" not in run("plan", "show", quantized).stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--latency", "fast"], "latency 'fast' is not understood"),
        (["--latency", "0.5x", "--recipe", "mixdq"], "recipe 'mixdq' cannot"),
        (["--profile", "none.json"], "give one as well"),
        (["--latency", "1x", "--profile", "none.json"], "none.json: no such file"),
    ],
)
def test_what_does_not_go_together_fails(fails, model, tmp_path, options, message):
    assert message in fails("quantize", model, "-o", tmp_path / "out", *options)


def test_an_unreachable_latency_names_the_nearest(fails, model, profile, tmp_path):
    options = ("--latency", "0.01x", "--profile", profile)
    message = fails("quantize", model, "-o", tmp_path / "out", *options)
    assert "the fastest plan takes" in message
    assert not (tmp_path / "out").exists()
