"""A latency is kept to in the profile's figures, whatever they are."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
from diffusers import DiffusionPipeline

import mezzotint as mz
from mezzotint.errors import BudgetError, InfeasibleBudgetError, ProfileError, UsageError
from mezzotint.plan import Choice
from mezzotint.profiling import (
    Figure,
    Machine,
    Profile,
    Timer,
    plan_latency,
    predict,
    profile_pipeline,
)
from mezzotint.runtime import module_bytes, packed_layers
from tests.models import tiny
from tests.profiling.ticking import ticking

FORMATS = ("int2/channel", "int4/channel", "int8/channel")
CHOICES = tuple(Choice(w, a) for w in FORMATS for a in ("float", "int8/token"))
OPTIONS = mz.Auto(formats=FORMATS, sensitivity="measured")
NANOSECOND = 1e-6  # in milliseconds; programs count picoseconds
SAMPLING = mz.Sampling(prompts=("owl", "heart"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline of few layers, its profile by a made-up clock, and all its measurements."""
    folder = tmp_path_factory.mktemp("latency")
    pipe = tiny.tiny_stable_diffusion()
    pipe.register_modules(unet=tiny.smallest_unet(attention=False))
    pipe.save_pretrained(folder / "tiny")
    tiny.write_generation(folder / "tiny", num_inference_steps=1, guidance_scale=1.0)
    pipe = mz.load(folder / "tiny")
    with ticking() as clock:
        timer = Timer(repeats=1, most=1, clock=clock)
        profile = profile_pipeline(pipe, choices=CHOICES, cache=folder / "cache", timer=timer)
    profile.save(folder / "profile.json")
    mz.quantize(
        pipe,
        dataclasses.replace(OPTIONS, profile=str(folder / "profile.json")),
        mz.Budget(latency="9x"),
        sampling=SAMPLING,
        journal=folder / "journal.jsonl",
    )
    return folder


@pytest.fixture
def pipe(source: Path) -> DiffusionPipeline:
    return mz.load(source / "tiny")


@pytest.fixture
def profile(source: Path) -> Profile:
    """Narrow weights are fast here, and int8 inputs twice as fast as floating ones."""
    return Profile.load(source / "profile.json")


@pytest.fixture
def quantize(source: Path, pipe: DiffusionPipeline, tmp_path: Path):
    """Run the recipe under a budget and a profile; nothing is measured anew."""
    journal = shutil.copy(source / "journal.jsonl", tmp_path / "journal.jsonl")

    def run(profile: Profile, budget: mz.Budget, **options) -> mz.Result:
        profile.save(tmp_path / "profile.json")
        changed = dataclasses.replace(OPTIONS, profile=str(tmp_path / "profile.json"), **options)
        return mz.quantize(pipe, changed, budget, sampling=SAMPLING, journal=journal)

    return run


def with_figures(profile: Profile, cost) -> Profile:
    """The same layers, their milliseconds by `cost(name, choice)`; the whole as it is."""
    layers = {
        name: dataclasses.replace(
            layer,
            figures={
                choice: Figure(cost(name, choice), figure.kernel)
                for choice, figure in layer.figures.items()
            },
        )
        for name, layer in profile.layers.items()
    }
    whole = profile.rest + sum(cost(name, Choice()) for name in layers)
    return dataclasses.replace(profile, layers=layers, milliseconds=whole)


def noise(result: mz.Result) -> float:
    return sum(result.measurements[name][result.plan[name]]["noise"] for name in result.plan)


@pytest.mark.parametrize("ratio", [0.9, 0.6, 0.4, 0.25])
def test_the_plan_keeps_to_the_latency_in_the_profiles_figures(quantize, profile, ratio):
    result = quantize(profile, mz.Budget(latency=f"{ratio}x"))
    predicted = predict(profile, result.plan)
    assert predicted <= ratio * profile.milliseconds + NANOSECOND
    assert set(packed_layers(result.denoiser)) == set(result.plan.quantized)


def test_milliseconds_are_a_latency_too(quantize, profile):
    limit = 0.5 * profile.milliseconds
    result = quantize(profile, mz.Budget(latency=f"{limit:.4f}ms"))
    assert predict(profile, result.plan) <= round(limit, 4) + NANOSECOND


def test_less_time_never_predicts_less_noise(quantize, profile):
    noises = [
        noise(quantize(profile, mz.Budget(latency=f"{ratio}x"))) for ratio in (1, 0.7, 0.4, 0.25)
    ]
    assert noises == sorted(noises)
    assert noises[0] < noises[-1]


def test_time_for_all_layers_leaves_them_floating(quantize, profile):
    result = quantize(profile, mz.Budget(latency="1x"))
    assert result.plan.quantized == {}


def test_the_latency_changes_the_plan(quantize, profile):
    budget = mz.Budget(weight_bits=9)
    limited = quantize(profile, dataclasses.replace(budget, latency="0.4x"))
    free = quantize(profile, dataclasses.replace(budget, latency="2x"))
    assert limited.plan.choices != free.plan.choices
    assert predict(profile, free.plan) > 0.4 * profile.milliseconds
    assert predict(profile, limited.plan) <= 0.4 * profile.milliseconds + NANOSECOND


def test_latency_and_size_hold_together(quantize, profile, pipe):
    budget = mz.Budget(size=module_bytes(pipe.unet) // 3, latency="0.45x")
    result = quantize(profile, budget)
    assert module_bytes(result.denoiser) <= budget.bytes
    assert predict(profile, result.plan) <= 0.45 * profile.milliseconds + NANOSECOND


def test_where_int8_inputs_are_slow_weights_are_for_storage_only(quantize, profile):
    slow = with_figures(profile, lambda name, c: 9.0 if c.activation != "float" else 1.0)
    result = quantize(slow, mz.Budget(weight_bits=8.5, latency="1x"))
    assert {choice.activation for choice in result.plan.choices.values()} == {"float"}
    assert result.plan.quantized


def test_where_packed_layers_are_slow_some_stay_floating(quantize, profile):
    slow = with_figures(profile, lambda name, c: 2.0 if c.quantized else 1.0)
    budget = mz.Budget(weight_bits=16, latency="1.5x")
    result = quantize(slow, dataclasses.replace(budget, act_bits=16))
    weights = {choice.weight for choice in result.plan.choices.values()}
    assert "float" in weights
    assert len(weights) > 1
    assert predict(slow, result.plan) <= 1.5 * slow.milliseconds + NANOSECOND


def test_only_layers_whose_figures_ask_for_it_are_narrowed(quantize, profile):
    def cost(name: str, choice: Choice) -> float:
        return 8.0 if name == "conv_in" and choice != Choice("int2/channel", "int8/token") else 1.0

    result = quantize(with_figures(profile, cost), mz.Budget(latency="0.9x"))
    assert result.plan.quantized == {"conv_in": Choice("int2/channel", "int8/token")}


def test_floating_inputs_can_be_asked_for(quantize, profile):
    result = quantize(profile, mz.Budget(latency="0.5x", act_bits=16))
    assert {choice.activation for choice in result.plan.choices.values()} == {"float"}


def nearest(message: str) -> str:
    """The milliseconds that an error offers."""
    return message.partition("takes ")[2].partition(",")[0]


@pytest.mark.parametrize("size", [None, 3])
def test_an_error_names_the_nearest_latency(quantize, profile, pipe, size):
    size = None if size is None else module_bytes(pipe.unet) // size
    with pytest.raises(InfeasibleBudgetError, match=r"latency 0\.01x cannot be met") as caught:
        quantize(profile, mz.Budget(size=size, latency="0.01x"))
    offered = nearest(str(caught.value))
    quantize(profile, mz.Budget(size=size, latency=offered))
    less = float(offered.removesuffix("ms")) - 0.002
    with pytest.raises(InfeasibleBudgetError):
        quantize(profile, mz.Budget(size=size, latency=f"{less:.4f}ms"))


def test_size_and_latency_that_exclude_each_other_are_refused(quantize, profile, pipe):
    # Each alone can be had: packed layers are slow here.
    slow = with_figures(profile, lambda name, choice: 3.0 if choice.quantized else 1.0)
    quantize(slow, mz.Budget(latency="1x"))
    small = module_bytes(pipe.unet) // 3
    with pytest.raises(InfeasibleBudgetError, match="the fastest plan of this size"):
        quantize(slow, mz.Budget(size=small, latency="1x"))


def test_an_unreachable_latency_is_refused_before_measuring(pipe, source, tmp_path):
    options = dataclasses.replace(OPTIONS, profile=str(source / "profile.json"))
    with pytest.raises(InfeasibleBudgetError):
        mz.quantize(
            pipe,
            options,
            mz.Budget(latency="0.01x"),
            sampling=SAMPLING,
            journal=tmp_path / "none.jsonl",
        )
    assert not (tmp_path / "none.jsonl").exists()


def test_the_plan_says_what_was_predicted(quantize, profile):
    result = quantize(profile, mz.Budget(latency="0.5x"))
    found = plan_latency(result.plan)
    assert found.predicted_ms == predict(profile, result.plan)
    assert found.float_ms == profile.milliseconds
    assert found.limit_ms == 0.5 * profile.milliseconds
    assert found.machine == Machine.here().key
    assert result.plan.context["budget"]["latency"] == "0.5x"


def test_without_a_latency_the_plan_says_nothing_of_it(pipe, source, tmp_path):
    journal = shutil.copy(source / "journal.jsonl", tmp_path / "journal.jsonl")
    result = mz.quantize(pipe, OPTIONS, sampling=SAMPLING, journal=journal)
    assert plan_latency(result.plan) is None
    activations = {choice.activation for choice in result.plan.choices.values()}
    assert activations <= {"int8/token", "uint8/token", "float"}


def test_a_profile_of_another_machine_is_refused(quantize, profile):
    other = dataclasses.replace(profile, machine=dataclasses.replace(profile.machine, threads=99))
    with pytest.raises(ProfileError, match="threads is 99 there"):
        quantize(other, mz.Budget(latency="1x"))


def test_a_profile_of_another_model_is_refused(quantize, profile):
    layers = {f"other.{name}": layer for name, layer in profile.layers.items()}
    with pytest.raises(ProfileError, match="is of another model"):
        quantize(dataclasses.replace(profile, layers=layers), mz.Budget(latency="1x"))


def test_a_profile_of_another_batch_is_refused(quantize, profile):
    with pytest.raises(ProfileError, match="is for a batch of 1, not 4"):
        quantize(profile, mz.Budget(latency="1x"), profile_batch=4)


def test_a_profile_without_a_candidate_is_refused(quantize, profile):
    with pytest.raises(ProfileError, match="no figure for int3/channel"):
        quantize(profile, mz.Budget(latency="1x"), formats=("int3/channel",))


def test_a_profile_goes_with_a_latency(quantize, profile):
    with pytest.raises(UsageError, match="give one as well"):
        quantize(profile, mz.Budget())


def test_without_a_profile_the_model_is_profiled_once(pipe, source, tmp_path, monkeypatch):
    monkeypatch.setenv("MEZZOTINT_CACHE", str(tmp_path))
    journal = shutil.copy(source / "journal.jsonl", tmp_path / "journal.jsonl")
    budget = mz.Budget(latency="100x")
    for _ in range(2):
        mz.quantize(pipe, OPTIONS, budget, sampling=SAMPLING, journal=journal)
        (path,) = (tmp_path / "profiles").glob("*.jsonl")
        lines = path.read_text()
    assert path.read_text() == lines


def test_recipes_that_cannot_keep_to_a_latency_say_so(pipe):
    with pytest.raises(UsageError, match=r"recipe 'mixdq' cannot .* use recipe auto"):
        mz.quantize(pipe, "mixdq", mz.Budget(latency="0.5x"), sampling=SAMPLING)


def test_a_latency_that_is_none_is_refused():
    with pytest.raises(BudgetError, match="'fast' is not understood"):
        mz.Budget(latency="fast")
