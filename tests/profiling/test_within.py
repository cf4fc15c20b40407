"""Times of packed layers within the denoiser, beside their times one by one."""

import pytest
from diffusers import UNet2DConditionModel
from torch import nn

from mezzotint.errors import PlanError
from mezzotint.plan import Choice, Plan
from mezzotint.profiling import (
    Figure,
    LayerProfile,
    Timer,
    Work,
    measure,
    predict,
    profile_pipeline,
)
from mezzotint.profiling.within import representatives, with_delays
from mezzotint.runtime import QuantLayer, SplitInput, StructuredLayer
from tests.profiling.conftest import CHOICES
from tests.profiling.ticking import FLOAT, seconds, ticking

PACKED, OTHER = Choice("int8/channel", "int8/token"), Choice("int4/channel")


def layer(floating: float, packed: float, runs: int = 1) -> LayerProfile:
    figures = {Choice(): floating, PACKED: packed, OTHER: packed}
    return LayerProfile(
        (3, 3), "float32", ("piece",) * runs, {c: Figure(f, "k") for c, f in figures.items()}
    )


def figures(layers: dict[str, LayerProfile], choice: Choice) -> list[float]:
    return [one.figures[choice].milliseconds for one in layers.values()]


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        pytest.param((), (), id="nothing"),
        pytest.param((Choice(),), (), id="floating"),
        pytest.param(CHOICES, (CHOICES[0], CHOICES[2], CHOICES[3]), id="one-for-each-activation"),
        pytest.param(
            (Choice("int8/channel"), Choice("int3/channel"), Choice("int5/channel")),
            (Choice("int3/channel"),),
            id="the-first-that-is-nearest-to-four-bits",
        ),
    ],
)
def test_one_choice_stands_for_all_of_its_activation(
    choices: tuple[Choice, ...], expected: tuple[Choice, ...]
):
    assert representatives(choices) == expected


def test_what_is_lost_is_shared_by_all_runs():
    layers = {"a": layer(4, 2), "b": layer(2, 1, runs=3)}
    # A call of 10 would be one of 7; it is one of 8.
    found = with_delays(layers, 10.0, {PACKED: 0.8})
    assert figures(found, PACKED) == pytest.approx([2.25, 1.75])


def test_what_is_gained_makes_all_shorter_alike():
    found = with_delays({"a": layer(4, 2), "b": layer(2, 1)}, 10.0, {PACKED: 0.55})
    assert figures(found, PACKED) == pytest.approx([1, 0.5])


def test_no_layer_takes_less_than_no_time():
    found = with_delays({"a": layer(4, 2)}, 10.0, {PACKED: 0.1})
    assert figures(found, PACKED) == [0]


def test_other_activations_and_floating_layers_are_left_alone():
    layers = {"a": layer(4, 2)}
    found = with_delays(layers, 10.0, {PACKED: 2.0})
    assert figures(found, OTHER) == [2]
    assert figures(found, Choice()) == [4]


def test_a_layer_that_is_not_reached_takes_no_time():
    found = with_delays({"a": layer(0, 0, runs=0), "b": layer(4, 2)}, 10.0, {PACKED: 1.0})
    assert figures(found, PACKED) == pytest.approx([0, 4])


def test_a_prediction_is_what_a_packed_denoiser_takes(pipe, tmp_path):
    def slower_within(module: nn.Module) -> float:
        packed = isinstance(module, UNet2DConditionModel) and any(
            isinstance(each, QuantLayer) for each in module.modules()
        )
        return 20 * FLOAT if packed else seconds(module)

    with ticking(slower_within) as clock:
        timer = Timer(repeats=1, most=1, clock=clock)
        profile = profile_pipeline(pipe, choices=CHOICES, cache=tmp_path / "cache", timer=timer)
    floating = sum(one.floating for one in profile.layers.values())
    for choice in representatives(CHOICES):
        plan = Plan(dict.fromkeys(profile.layers, choice))
        # Each of them halves a layer's time.
        expected = profile.rest + floating / 2 + 20e3 * FLOAT
        assert predict(profile, plan) == pytest.approx(expected)


def test_nothing_is_made_up_where_no_layer_takes_the_choice(
    pipe, timer, tmp_path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(name: str, layer: nn.Module, choice: Choice) -> nn.Module:
        raise PlanError(f"layer {name}: not {choice}")

    monkeypatch.setattr(measure, "empty_layer", refuse)
    path = tmp_path / "cache.jsonl"
    found = profile_pipeline(pipe, choices=CHOICES, cache=path, timer=timer)
    assert found.choices == (Choice(),)
    assert '"denoiser"' in path.read_text("utf-8")
    assert '"denoiser |' not in path.read_text("utf-8")


def test_structure_counts_in_what_packed_denoisers_take(pipe, tmp_path):
    shortcut = "up_blocks.0.resnets.0.conv_shortcut"
    extra = 5 * FLOAT

    def slow_when_split(module: nn.Module) -> float:
        return extra if isinstance(module, StructuredLayer) else seconds(module)

    predictions = []
    for work in (Work(), Work(structures={shortcut: (SplitInput(8),)})):
        with ticking(slow_when_split) as clock:
            timer = Timer(repeats=1, most=1, clock=clock)
            profile = profile_pipeline(
                pipe, work, choices=CHOICES[:1], cache=tmp_path / "cache", timer=timer
            )
        predictions.append(predict(profile, Plan(dict.fromkeys(profile.layers, CHOICES[0]))))
    assert predictions[1] - predictions[0] >= 1e3 * extra
