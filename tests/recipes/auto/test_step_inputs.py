"""Inputs with a scale for each timestep take part in the program."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typing_extensions import override

import mezzotint as mz
from mezzotint.calibration import calibrated
from mezzotint.errors import UsageError
from mezzotint.measuring import relative_noise
from mezzotint.models import completed_calls
from mezzotint.runtime import StepScales, module_bytes, packed_copy, stored_tensors
from tests.recipes.auto.denoisers import Chain, calls

TIMES = (10, 500, 900)
GAINS = {10: 0.1, 500: 1.0, 900: 10.0}
QUICK = {"sensitivity": "probes", "exchanges": False, "bias_correction": "never"}
STEP, TOKEN = "uint4/step", ("int4/token", "uint4/token")


class LongTails(nn.Module):
    """Two convolutions, whose inputs have long tails, and are as large as the timestep says.

    Scales per image follow the timestep as well, but go as far as the largest value does.
    """

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.first, self.last = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 4, 1)

    @override
    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        gain = GAINS[int(timestep)]
        h = self.first(sample * gain) / gain
        return self.last(torch.sinh(h) * gain) / gain


def image_calls(count: int = 6, seed: int = 3) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    generator = torch.Generator().manual_seed(seed)
    found = []
    for index in range(count):
        x = torch.empty(6, 4, 40, 40).exponential_(generator=generator)
        signs = torch.empty_like(x).bernoulli_(generator=generator) * 2 - 1
        found.append(((x * signs, torch.tensor(TIMES[index % 3])), {}))
    return found


class TimedChain(Chain):
    """A chain with a peaked layer, called with a timestep that changes nothing."""

    @override
    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x)


def timed_calls(count: int = 4) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    return [((*args, torch.tensor(TIMES[n % 3])), {}) for n, (args, _) in enumerate(calls(count))]


@pytest.fixture
def tailed(run):
    """Quantize `LongTails`: by default with weights that hardly matter."""

    def quantized(budget: mz.Budget | None = None, **options: Any) -> mz.ModuleResult:
        usual = {"module": LongTails().eval(), "on": image_calls(), "act_share": 1, **QUICK}
        return run(budget or mz.Budget(16, act_bits=4), **{**usual, **options})

    return quantized


def inputs_of(plan: mz.Plan) -> set[str]:
    return {choice.activation for choice in plan.choices.values()}


def noise(result: mz.ModuleResult, timestep: int) -> float:
    """Of calls that were not recorded."""
    module = LongTails().eval()
    found = []
    with torch.no_grad():
        for args, _ in image_calls(seed=4):
            if int(args[1]) == timestep:
                found.append(relative_noise(module(*args), result.module(*args)))
    return float(torch.cat(found).mean())


def test_at_every_timestep_there_is_less_noise_than_per_image(tailed):
    step, token = (tailed(inputs=(*names, "float")) for names in ((STEP,), TOKEN))
    assert inputs_of(step.plan) == {STEP}
    assert inputs_of(token.plan) <= set(TOKEN)
    for timestep in TIMES:
        assert noise(step, timestep) < 0.7 * noise(token, timestep)


def test_the_program_takes_what_loses_less(tailed):
    assert inputs_of(tailed(inputs=(STEP, *TOKEN), sensitivity="measured").plan) == {STEP}
    wider = tailed(inputs=(STEP, "uint8/token"))
    assert inputs_of(wider.plan) == {"uint8/token"}


def test_the_plan_has_a_scale_for_each_timestep_of_the_calls(tailed):
    plan = tailed(activation=STEP).plan
    assert {choice.structures for choice in plan.choices.values()} == {(StepScales(3),)}
    two = tailed(activation=STEP, on=image_calls(2)).plan
    assert {choice.steps for choice in two.choices.values()} == {2}


def test_the_packed_bytes_are_the_plans(tailed):
    result = tailed(mz.Budget(5, act_bits=4), inputs=(STEP, *TOKEN))
    module = LongTails()
    layers = {name: getattr(module, name) for name in result.plan.choices}
    stored = sum(
        spec.nbytes
        for name, choice in result.plan.choices.items()
        for spec in stored_tensors(choice, tuple(layers[name].weight.shape)).values()
    )
    biases = sum(layer.bias.nbytes for layer in layers.values())
    assert module_bytes(result.module) == stored + biases


def test_bytes_go_where_they_buy_more(tailed):
    """Tables of three steps take 27 bytes a layer; the smallest plan has no room for any."""
    options = {"formats": ("int8/channel",), "inputs": (STEP, *TOKEN), "sensitivity": "measured"}
    least = module_bytes(tailed(formats=("int8/channel",), inputs=TOKEN).module)
    for extra, expected in ((26, 0), (27, 1), (54, 2)):
        plan = tailed(mz.Budget(size=least + extra, act_bits=4), **options).plan
        assert sum(choice.steps > 0 for choice in plan.choices.values()) == expected


def test_probes_and_measuring_agree(tailed):
    predicted, measured = (
        tailed(inputs=("uint6/step",), sensitivity=sensitivity, probes=256).measurements
        for sensitivity in ("probes", "measured")
    )
    for name, each in measured.items():
        for choice, losses in each.items():
            for part in ("weight", "input"):
                assert predicted[name][choice][part] == pytest.approx(losses[part], rel=0.4)


def test_exchanges_and_biases_are_tried_around_such_a_plan(tailed):
    tried = {"sensitivity": "hybrid", "exchanges": True, "bias_correction": "tried"}
    found = tailed(mz.Budget(8, act_bits=4), inputs=(STEP,), **tried)
    assert found.plan.context["exchanges"]["probes"]
    assert "held_out_gain" in found.plan.context["bias_correction"]
    assert inputs_of(found.plan) == {STEP}


def test_smoothed_inputs_have_them_too(run):
    on = {"module": TimedChain().eval(), "on": timed_calls(), "inputs": ("uint8/step",)}
    plan = run(act_share=1, **on).plan
    assert plan["peaked"].structures == (mz.Smoothing(), StepScales(3))
    assert plan["middle"].structures == (StepScales(3),)
    assert plan.reasons["peaked"].startswith("smoothed input")
    without = run(act_share=1, smoothing=False, **on)
    measured = (each.plan.context["measured_sqnr_db"] for each in (run(act_share=1, **on), without))
    smooth, rough = measured
    assert smooth > rough + 10


def test_the_saved_plan_gives_the_same_bytes_again(run, tmp_path):
    denoiser = TimedChain().eval()
    first = run(module=denoiser, on=timed_calls(), inputs=("uint8/step",), act_share=1)
    first.plan.save(tmp_path / "plan.json")
    plan = mz.Plan.load(tmp_path / "plan.json")
    calibration = calibrated(denoiser, plan, completed_calls(denoiser, timed_calls()))
    left, right = (
        module.state_dict() for module in (first.module, packed_copy(denoiser, plan, calibration))
    )
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_floating_inputs_remain_a_way_out(run):
    on = {"module": TimedChain().eval(), "on": timed_calls(), "smoothing": False}
    plan = run(inputs=("uint8/step", "float"), act_share=0.75, **on).plan
    assert {n for n, choice in plan.choices.items() if choice.activation == "float"} == {"peaked"}
    assert not plan["peaked"].structures


def test_a_denoiser_without_a_timestep_is_refused(run):
    with pytest.raises(UsageError, match="is called without a timestep"):
        run(inputs=("uint8/step",))


def test_more_than_one_such_format_is_refused(run):
    with pytest.raises(UsageError, match="more than one has a scale per timestep"):
        run(inputs=(STEP, "uint8/step"))


def test_a_latency_knows_no_such_input(run):
    with pytest.raises(UsageError, match="profiles know no input with a scale"):
        run(mz.Budget(latency="0.5x"), inputs=("uint8/step",))
