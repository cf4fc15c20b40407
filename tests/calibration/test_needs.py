"""A plan alone is enough: what it needs calibrated is calibrated."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline

import mezzotint as mz
from mezzotint.calibration import calibrated, needs_calibration
from mezzotint.errors import PlanError
from mezzotint.formats import from_bits
from mezzotint.models import Call, record_calls
from tests.models import tiny

KEYS = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
CONSTANT = mz.Choice("int8/channel", "int8/token", structures=(mz.ConstantTokens(1),))
STATIC = mz.Choice("int8/channel", "uint8/tensor")


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> DiffusionPipeline:
    return mz.load(tiny.save_few_step(tmp_path_factory.mktemp("needs") / "tiny"))


@pytest.fixture(scope="module")
def calls(pipe: DiffusionPipeline) -> tuple[Call, ...]:
    return record_calls(pipe, mz.Sampling(("owl", "red heart")))


@pytest.mark.parametrize(
    ("choice", "needed"),
    [(CONSTANT, True), (STATIC, True), (CONSTANT.plain, False), (mz.Choice(), False)],
    ids=["constant", "static", "dynamic", "float"],
)
def test_constants_and_static_ranges_need_it(choice: mz.Choice, needed: bool):
    assert needs_calibration(mz.Plan({KEYS: choice})) == needed


@pytest.mark.parametrize(
    ("encoding", "grams", "mean"),
    [
        (mz.Encoding(rounding="feedback"), True, True),
        (mz.Encoding(bias_correction=True), False, True),
        (mz.Encoding(), False, False),
    ],
    ids=["feedback", "bias correction", "nearest"],
)
def test_encodings_that_look_at_inputs_need_their_moments(
    pipe: DiffusionPipeline, calls: tuple[Call, ...], encoding: mz.Encoding, grams: bool, mean: bool
):
    plan = mz.Plan({"conv_in": CONSTANT.plain}, encoding=encoding)
    assert needs_calibration(plan) == mean
    found = calibrated(pipe.unet, plan, calls).moments
    assert [bool(part.blocks) for parts in found.values() for part in parts] == [grams] * mean


def test_of_layers_without_a_bias_no_mean_is_gathered(
    pipe: DiffusionPipeline, calls: tuple[Call, ...]
):
    corrected = mz.Encoding(bias_correction=True)
    plan = mz.Plan({KEYS: CONSTANT.plain, "conv_in": CONSTANT.plain}, encoding=corrected)
    assert list(calibrated(pipe.unet, plan, calls).moments) == ["conv_in"]


def test_constants_are_the_floating_outputs(pipe: DiffusionPipeline, calls: tuple[Call, ...]):
    seen: list[torch.Tensor] = []
    layer = pipe.unet.get_submodule(KEYS)
    hook = layer.register_forward_hook(lambda *found: seen.append(found[2][:, :1]))
    with torch.no_grad():
        calls[0].run(pipe.unet)
    hook.remove()
    packing = calibrated(pipe.unet, mz.Plan({KEYS: CONSTANT}), calls)
    constant = from_bits(packing.tensors[KEYS]["constant"], torch.float32)
    torch.testing.assert_close(constant, seen[0][0])
    assert not packing.input_ranges


def test_static_ranges_are_those_of_the_calls(pipe: DiffusionPipeline, calls: tuple[Call, ...]):
    packing = calibrated(pipe.unet, mz.Plan({"conv_in": STATIC}), calls)
    (found,) = packing.input_ranges["conv_in"]
    assert found.low == min(float(call.args[0].min()) for call in calls)
    assert found.high == max(float(call.args[0].max()) for call in calls)


def test_a_token_that_is_not_constant_names_its_layer(
    pipe: DiffusionPipeline, calls: tuple[Call, ...]
):
    queries = KEYS.replace("to_k", "to_q")
    with pytest.raises(PlanError, match=f"layer {queries}: constant_tokens: its first token is"):
        calibrated(pipe.unet, mz.Plan({queries: CONSTANT}), calls)


def test_a_saved_plan_makes_the_same_pipeline(pipe: DiffusionPipeline, tmp_path: Path):
    options = mz.Auto(formats=("int4/channel",))
    sampling = mz.Sampling(("owl", "red heart"))
    first = mz.quantize(pipe, options, mz.Budget(8), sampling=sampling)
    assert needs_calibration(first.plan)
    first.plan.save(tmp_path / "plan.json")
    again = mz.apply(pipe, mz.Plan.load(tmp_path / "plan.json"), sampling=sampling)
    held, remade = first.denoiser.state_dict(), again.denoiser.state_dict()
    assert held.keys() == remade.keys()
    assert all(torch.equal(held[name], remade[name]) for name in held)
