"""Inputs of as many bits as each denoising step needs, within an average."""

from __future__ import annotations

import pytest
import torch

import mezzotint as mz
from mezzotint.errors import UsageError
from mezzotint.measuring import InputChange
from mezzotint.models import record_calls
from mezzotint.plan import CallSelection
from mezzotint.recipes.job import Job
from mezzotint.recipes.mpqdm.method import EVERY_CALL, prepared
from mezzotint.recipes.mpqdm.step_bits import allocated_bits, input_noises_by_step
from mezzotint.runtime import StepWidths, module_bytes
from tests.measuring.figures import noise

WIDTHS = range(2, 9)


def halving(first: float) -> dict[int, float]:
    """Noise that each bit makes a quarter."""
    return {bits: first * 4.0**-bits for bits in WIDTHS}


class TestAllocation:
    def test_equal_noises_get_equal_bits(self):
        found = allocated_bits({"a": [halving(1), halving(1)]}, {"a": 100}, 4)
        assert found == {"a": (4, 4)}

    def test_steps_that_lose_more_get_more(self):
        found = allocated_bits({"a": [halving(16), halving(1), halving(1 / 16)]}, {"a": 100}, 4)
        assert found == {"a": (6, 4, 2)}

    def test_the_average_is_over_multiply_accumulates(self):
        noises = {"large": [halving(1)], "small": [halving(1)]}
        found = allocated_bits(noises, {"large": 1000, "small": 1}, 4)
        assert found == {"large": (4,), "small": (4,)}
        cheap = allocated_bits(noises, {"large": 1000, "small": 0}, 4)
        assert cheap == {"large": (4,), "small": (8,)}

    @pytest.mark.parametrize("average", [2, 3, 5, 8])
    def test_no_plan_of_one_width_loses_less(self, average: int):
        generator = torch.Generator().manual_seed(average)
        sizes = torch.rand(3, 5, generator=generator).mul(12).exp2().tolist()
        noises = {str(n): [halving(size) for size in each] for n, each in enumerate(sizes)}
        macs = {"0": 7, "1": 30, "2": 100}
        found = allocated_bits(noises, macs, average)

        def lost(bits: dict[str, tuple[int, ...]]) -> float:
            return sum(noises[n][i][b] for n, each in bits.items() for i, b in enumerate(each))

        used = sum(macs[name] * sum(bits) for name, bits in found.items())
        assert used <= average * 5 * sum(macs.values())
        assert lost(found) <= lost(dict.fromkeys(noises, (average,) * 5))


@pytest.fixture(scope="module")
def narrow(quantize) -> dict[str, mz.Choice]:
    plan = quantize(step_bits=True).plan
    return {n: c for n, c in plan.choices.items() if c.activation == "uint8/step"}


def test_every_layer_has_a_width_at_each_timestep(quantize, narrow):
    usual = quantize().plan
    assert narrow.keys() == {n for n, c in usual.choices.items() if c.activation == "uint4/step"}
    assert {choice.structures[-1].steps for choice in narrow.values()} == {2}
    assert len({bits for choice in narrow.values() for bits in choice.structures[-1].bits}) > 2


def test_the_average_is_kept_and_told(quantize):
    told = quantize(step_bits=True).plan.context["input_bits_by_timestep"]
    assert len(told) == 2
    assert 3.5 < sum(told.values()) / 2 <= 4.0


def test_a_byte_is_stored_for_each_width(quantize, narrow):
    sizes = [module_bytes(quantize(step_bits=each).denoiser) for each in (False, True)]
    assert sizes[1] - sizes[0] == 2 * len(narrow)


def test_weights_are_those_of_the_usual_plan(quantize):
    usual, found = quantize().plan, quantize(step_bits=True).plan
    assert {n: c.weight for n, c in found.choices.items()} == {
        n: c.weight for n, c in usual.choices.items()
    }


def test_it_is_saved_and_loaded_and_packed_again_from_its_plan(quantize, pipe, sampling, tmp_path):
    result = quantize(step_bits=True)
    call = record_calls(pipe, sampling, limit=1)[0]
    loaded = mz.load(result.save(tmp_path / "saved"))
    again = mz.apply(pipe, result.plan)
    with torch.no_grad():
        expected = call.run(result.denoiser)
        assert torch.equal(call.run(loaded.unet), expected)
        assert torch.equal(call.run(again.denoiser), expected)


def test_its_scales_are_trained(quantize):
    trained, untrained = (quantize(step_bits=True, train_steps=n) for n in (2, 0))
    one, other = trained.denoiser.state_dict(), untrained.denoiser.state_dict()
    changed = {name for name in one if not torch.equal(one[name], other[name])}
    assert any(name.endswith("step_scale") for name in changed)
    assert not any(name.endswith("step_bits") for name in changed)


def test_noises_are_those_of_really_rounding(pipe, sampling):
    """At each step by itself, as far as some probes can tell."""
    job = Job(pipe.unet, "tiny", mz.Budget(weight_bits=2, act_bits=4), pipe, sampling)
    method = prepared(job, mz.MPQDM(step_bits=True, train_steps=0))
    plan = method.plan()
    calibration = method.calibrated(plan)
    calls = record_calls(pipe, sampling, CallSelection(EVERY_CALL, 8))
    steps = {float(call.args[1]): [call] for call in reversed(calls)}
    name = method.narrow[3].name
    choices = {name: plan[name]}
    found = input_noises_by_step(method, choices, steps, calibration)[name]
    for index, each in enumerate(steps.values()):
        measured = noise(pipe.unet, InputChange(name, plan[name]), each, calibration)
        assert found[index][4] == pytest.approx(measured, rel=0.8)
        assert found[index][2] > found[index][4] > found[index][8]


@pytest.mark.parametrize(
    ("options", "act_bits", "named"),
    [
        ({"inputs": "token"}, 4, "goes with a scale for each step, not with inputs token"),
        ({}, 16, "inputs are floating at 16 act_bits"),
    ],
    ids=["other inputs", "floating inputs"],
)
def test_what_it_cannot_go_with_is_refused(pipe, sampling, options, act_bits, named):
    budget = mz.Budget(weight_bits=2, act_bits=act_bits)
    with pytest.raises(UsageError, match=f"step_bits: {named}"):
        mz.quantize(pipe, mz.MPQDM(step_bits=True, **options), budget, sampling=sampling)


def test_where_bytes_are_counted_it_is_refused(pipe, sampling):
    with pytest.raises(UsageError, match="step_bits: True is for nominal widths"):
        mz.quantize(pipe, mz.MPQDM(step_bits=True), mz.Budget(size=10**6), sampling=sampling)


def test_widths_are_a_structure_of_the_public_interface(narrow):
    assert all(isinstance(c.structures[-1], StepWidths) for c in narrow.values())
    assert mz.StepWidths is StepWidths
