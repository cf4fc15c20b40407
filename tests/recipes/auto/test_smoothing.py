"""Smoothed inputs take part in the program, where inputs have a few large channels."""

from __future__ import annotations

import pytest
import torch

import mezzotint as mz
from mezzotint.calibration import calibrated
from mezzotint.errors import UsageError
from mezzotint.measuring import relative_noise
from mezzotint.models import completed_calls
from mezzotint.runtime import module_bytes, packed_copy
from tests.recipes.auto.denoisers import Chain, Images, Normed, calls, image_calls

DENOISERS = pytest.mark.parametrize(
    ("module", "given", "peaked"),
    [
        (Chain, calls, {"peaked"}),
        (Images, image_calls, {"peaked_conv", "peaked_linear"}),
    ],
    ids=["linear", "convolutions"],
)
QUICK = {"sensitivity": "probes", "exchanges": False, "bias_correction": "never"}


def smoothed(plan: mz.Plan) -> set[str]:
    return {n for n, choice in plan.choices.items() if mz.Smoothing() in choice.structures}


def floating_inputs(plan: mz.Plan) -> set[str]:
    return {n for n, choice in plan.choices.items() if choice.activation == "float"}


def noise(module: torch.nn.Module, result: mz.ModuleResult, others: list) -> float:
    """Of calls that were not recorded."""
    with torch.no_grad():
        found = [relative_noise(module(*args), result.module(*args)) for args, _ in others]
    return float(torch.cat(found).mean())


@DENOISERS
def test_layers_with_large_channels_get_8_bit_inputs_at_less_noise_and_equal_bytes(
    run, module, given, peaked
):
    denoiser, others = module().eval(), given(8)[4:]
    found = {
        smoothing: run(module=denoiser, on=given(), smoothing=smoothing)
        for smoothing in (False, True)
    }
    assert smoothed(found[True].plan) == peaked
    assert not smoothed(found[False].plan)
    assert not floating_inputs(found[True].plan)
    budget = mz.Budget(5).weight_bits * sum(p.numel() for p in _weights(denoiser)) / 8
    for result in found.values():
        assert module_bytes(result.module) - _biases(result.module) <= budget
    gain = noise(denoiser, found[False], others) / noise(denoiser, found[True], others)
    assert gain > 10


@DENOISERS
def test_fewer_inputs_stay_floating_for_the_same_noise(run, module, given, peaked):
    """Without smoothing, the peaked layers are those whose inputs are left alone."""
    denoiser = module().eval()
    share = {"act_share": 0.2, "module": denoiser, "on": given()}
    assert peaked <= floating_inputs(run(**share, smoothing=False).plan)
    found = run(**share).plan
    assert peaked <= smoothed(found)


def test_probes_and_measuring_agree_on_a_smoothed_input(run):
    predicted, measured = (
        run(sensitivity=sensitivity, probes=256, exchanges=False).measurements
        for sensitivity in ("probes", "measured")
    )
    choices = [each for each in measured["peaked"] if mz.Smoothing() in each.structures]
    assert len(choices) == 10
    for choice in choices:
        for part in ("weight", "input"):
            exact = measured["peaked"][choice][part]
            assert predicted["peaked"][choice][part] == pytest.approx(exact, rel=0.4)


def test_its_bytes_are_counted(run):
    formats = ("int4/channel",)
    plain, smooth = (
        run(mz.Budget(16), formats=formats, smoothing=smoothing, **QUICK)
        for smoothing in (False, True)
    )
    assert smoothed(smooth.plan) == {"peaked"}
    assert module_bytes(smooth.module) - module_bytes(plain.module) == 32


def test_bytes_go_where_they_buy_more(run):
    """The smallest plan has no room for exponents."""
    denoiser = Chain().eval()
    least = run(mz.Budget(16), module=denoiser, formats=("int2/channel",), smoothing=False, **QUICK)
    size = module_bytes(least.module)
    for extra, expected in ((0, set()), (32, {"peaked"})):
        budget = mz.Budget(size=size + extra)
        plan = run(budget, module=denoiser, formats=("int2/channel",), **QUICK).plan
        assert smoothed(plan) == expected


def test_norms_do_not_smooth_where_nothing_is_smoothed():
    with pytest.raises(UsageError, match="smoothing_norms: says who smooths, and without"):
        mz.Auto(smoothing=False, smoothing_norms=True)


def test_a_norm_smooths_what_it_puts_out_where_that_is_asked_for(run):
    denoiser = Normed().eval()
    in_norm, stored = (
        run(module=denoiser, smoothing_norms=norms, formats=("int4/channel",), **QUICK)
        for norms in (True, False)
    )
    assert smoothed(stored.plan) == {"peaked"}
    assert in_norm.plan["peaked"].structures[0] == mz.NormSmoothing("norm")
    assert in_norm.plan.reasons["peaked"] == stored.plan.reasons["peaked"]
    assert module_bytes(stored.module) - module_bytes(in_norm.module) == 32
    with torch.no_grad():
        outputs = [each.module(*args) for each in (in_norm, stored) for args, _ in calls(1)]
    assert torch.equal(*outputs)


def test_the_plan_says_what_smoothing_does(run):
    plan = run().plan
    assert plan.reasons["peaked"].startswith("smoothed input: its rounding errs ")
    assert plan.reasons["peaked"].endswith(" dB less")


def test_the_saved_plan_gives_the_same_bytes_again(run, tmp_path):
    denoiser = Images().eval()
    first = run(module=denoiser, on=image_calls())
    first.plan.save(tmp_path / "plan.json")
    plan = mz.Plan.load(tmp_path / "plan.json")
    calibration = calibrated(denoiser, plan, completed_calls(denoiser, image_calls()))
    packed = packed_copy(denoiser, plan, calibration)
    left, right = first.module.state_dict(), packed.state_dict()
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_static_inputs_are_smoothed_too(run):
    static = {"inputs": ("uint8/tensor", "float"), "act_share": 1, "clips": ("mse", "full")}
    plan = run(**static).plan
    assert smoothed(plan) == {"peaked"}
    assert "peaked" not in plan.encodings
    without = run(**static, smoothing=False)
    assert noise(Chain().eval(), run(**static), calls(8)[4:]) < 0.1 * noise(
        Chain().eval(), without, calls(8)[4:]
    )


def test_exchanges_and_biases_take_smoothed_layers_along(run):
    found = run(mz.Budget(4), bias_correction="always", probes=32)
    assert smoothed(found.plan) == {"peaked"}
    assert "exchanges" in found.plan.context
    assert found.plan.encoding.bias_correction


@pytest.mark.parametrize("options", [{"smoothing": False}, {"inputs": ("float",)}], ids=str)
def test_where_it_is_not_wanted_there_are_no_candidates(run, options):
    found = run(**options, **QUICK)
    assert not any(
        mz.Smoothing() in choice.structures
        for each in found.measurements.values()
        for choice in each
    )


def test_inputs_without_large_channels_have_no_candidates(run):
    found = run(**QUICK).measurements
    smooth = {
        name
        for name, each in found.items()
        if any(mz.Smoothing() in choice.structures for choice in each)
    }
    assert smooth == {"peaked"}


def _weights(module: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [parameter for name, parameter in module.named_parameters() if name.endswith("weight")]


def _biases(module: torch.nn.Module) -> int:
    return sum(p.nbytes for name, p in module.named_parameters() if name.endswith("bias"))
