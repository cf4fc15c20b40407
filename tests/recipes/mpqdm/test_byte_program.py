"""Stored bytes in place of a nominal width: one program, then training."""

from __future__ import annotations

from dataclasses import replace

import pytest

import mezzotint as mz
from mezzotint.errors import InfeasibleBudgetError, UsageError
from mezzotint.formats import MINMAX
from mezzotint.recipes import Auto
from mezzotint.recipes.mpqdm import byte_program
from mezzotint.recipes.mpqdm.byte_program import program_options
from mezzotint.runtime import module_bytes, stored_tensors


@pytest.fixture(scope="module")
def size(quantize) -> int:
    """Bytes of the plan of two nominal bits."""
    return module_bytes(quantize().denoiser)


@pytest.fixture(scope="module")
def by_size(pipe, sampling, size):
    """That many bytes, by a program that looks no closer than it must."""

    def quick(options: mz.MPQDM, budget: mz.Budget) -> Auto:
        return replace(
            program_options(options, budget),
            inputs=("uint8/step", "float"),
            formats=("int2/channel", "lut3/channel", "int4/channel", "int8/channel"),
            probes=8,
            regret=1e9,
            exchanges=False,
            sensitivity="probes",
        )

    options = mz.MPQDM(train_steps=2, ranges=MINMAX)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(byte_program, "program_options", quick)
        return mz.quantize(pipe, options, mz.Budget(size=size, act_bits=8), sampling=sampling)


def test_the_bytes_are_kept_and_the_plan_is_trained(by_size, size):
    assert module_bytes(by_size.denoiser) <= size
    assert by_size.plan.trained
    assert by_size.training is not None
    assert by_size.training.to_dict()["updates"] == 2


def test_layers_have_different_widths(by_size):
    assert len({choice.weight for choice in by_size.plan.quantized.values()}) > 1


def test_inputs_have_a_scale_for_each_step_of_the_sampler(by_size):
    quantized = [each for each in by_size.plan.quantized.values() if each.activation != "float"]
    assert {each.activation for each in quantized} == {"uint8/step"}
    assert {each.steps for each in quantized} == {2}
    assert {type(each) for choice in quantized for each in choice.structures} >= {
        mz.StepScales,
        mz.ConstantTokens,
    }


def test_the_packed_bytes_are_the_plans(pipe, by_size):
    stored = sum(
        spec.nbytes
        for name, choice in by_size.plan.quantized.items()
        for spec in stored_tensors(
            choice, tuple(pipe.unet.get_submodule(name).weight.shape)
        ).values()
    )
    floating = sum(
        parameter.nbytes
        for name, parameter in pipe.unet.named_parameters()
        if name.removesuffix(".weight") not in by_size.plan.quantized
    )
    assert module_bytes(by_size.denoiser) == stored + floating


def test_bits_are_said_without_exceptions(by_size, size):
    bits = by_size.plan.context["bits"]
    assert bits["nominal"] == bits["with_exceptions"] < bits["stored"] < bits["denoiser"]
    assert by_size.plan.context["recipe"] == "mpqdm"


def test_measurements_are_kept_for_another_size(by_size):
    assert by_size.record is not None


def test_switches_reach_the_program():
    budget = mz.Budget(size=10**6, act_bits=4)
    assert program_options(mz.MPQDM(), budget).mixtures == (2, 3, 4)
    options = mz.MPQDM(channels="none", bos=False, smoothing=False, rounding="nearest")
    found = program_options(options, budget)
    assert found == Auto(
        calibration_prompts=options.calibration_prompts,
        inputs=("uint4/step", "int4/token", "uint4/token", "float"),
        bos=False,
        smoothing=False,
        smoothing_norms=False,
        rounding="nearest",
        search=options.ranges,
    )


@pytest.mark.parametrize(
    ("inputs", "act_bits", "expected"),
    [
        ("step", 6, ("uint6/step", "int6/token", "uint6/token", "float")),
        ("tensor", 8, ("uint8/tensor", "int8/token", "uint8/token", "float")),
        ("token", 4, None),
        ("step", 16, None),
    ],
    ids=str,
)
def test_inputs_reach_the_program(inputs, act_bits, expected):
    budget = mz.Budget(size=10**6, act_bits=act_bits)
    assert program_options(mz.MPQDM(inputs=inputs), budget).inputs == expected


def test_too_few_bytes_name_what_can_be_met(pipe, sampling):
    with pytest.raises(InfeasibleBudgetError, match="the smallest plan takes"):
        mz.quantize(pipe, mz.MPQDM(), mz.Budget(size=1000), sampling=sampling)


@pytest.mark.parametrize(
    "option",
    [{"plus": True}, {"channels": "random"}, {"shortcuts": "quantized"}],
    ids=str,
)
def test_what_would_change_nothing_is_refused(pipe, sampling, option):
    (name,) = option
    with pytest.raises(UsageError, match=f"{name}: .* is for nominal widths"):
        mz.quantize(
            pipe, mz.MPQDM(train_steps=0, **option), mz.Budget(size=10**6), sampling=sampling
        )
