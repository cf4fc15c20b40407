"""Pipelines of constant first tokens that meet others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel
from torch import Tensor

import mezzotint as mz
from mezzotint.errors import CalibrationWarning
from mezzotint.evaluation import sqnr
from mezzotint.models import find_denoiser
from tests.models import tiny

TEXT = ("attn2.to_k", "attn2.to_v")
PROMPTS = ["owl", "red apple"]
WARNED = pytest.warns(CalibrationWarning, match="zeros for a negative prompt")
"""A second warning would be an error: all are."""

WITHOUT_GUIDANCE = mz.Sampling(tuple(PROMPTS), steps=1, guidance=0.0)


@pytest.fixture(scope="module")
def pipe() -> DiffusionPipeline:
    return tiny.tiny_stable_diffusion()


def quantized(pipe: DiffusionPipeline, *structures: mz.ConstantTokens) -> DiffusionPipeline:
    choice = mz.Choice("int4/channel", "int8/token", structures)
    choices = {
        name: choice if name.endswith(TEXT) else mz.Choice()
        for name in mz.uniform_plan(pipe.unet, weight_bits=8)
    }
    return mz.apply(pipe, mz.Plan(choices), sampling=WITHOUT_GUIDANCE).pipeline


@pytest.fixture(scope="module")
def constant(pipe: DiffusionPipeline) -> DiffusionPipeline:
    return quantized(pipe, mz.ConstantTokens(1))


@torch.no_grad()
def predicted(pipe: DiffusionPipeline, *, zeros: bool = True) -> Tensor:
    """Output of a denoiser for two texts under guidance, with zeros for the negative one."""
    texts, negative = pipe.encode_prompt(PROMPTS, "cpu", 1, True)
    if zeros:  # as the pipelines of SDXL do
        negative = torch.zeros_like(negative)
    latents = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    _, denoiser = find_denoiser(pipe)
    output: Tensor = denoiser(latents, torch.tensor(500), torch.cat([negative, texts]))[0]
    return output


def decibels(pipe: DiffusionPipeline, exact: DiffusionPipeline) -> float:
    """SQNR of the worst sample."""
    return float(sqnr(predicted(exact), predicted(pipe)).min())


def test_guidance_may_be_switched_on_later(pipe: DiffusionPipeline, constant: DiffusionPipeline):
    with WARNED:
        found = decibels(constant, pipe)
    assert decibels(constant, pipe) == found
    assert found > decibels(quantized(pipe), pipe) - 0.5
    assert found > decibels(quantized(pipe, mz.ConstantTokens(1, checked=False)), pipe) + 3


def test_negative_prompts_begin_like_all_others(pipe: DiffusionPipeline):
    predicted(quantized(pipe, mz.ConstantTokens(1)), zeros=False)


def test_openvino_computes_the_same_and_says_so_once(pipe: DiffusionPipeline):
    torch_only = quantized(pipe, mz.ConstantTokens(1))
    served = mz.with_engine(quantized(pipe, mz.ConstantTokens(1)), "openvino")
    predicted(served, zeros=False)
    with WARNED:
        found = predicted(served)
    predicted(served)
    with WARNED:
        expected = predicted(torch_only)
    assert float(sqnr(expected, found).min()) > 40


def test_checkpoints_of_older_versions_load_as_they_were(pipe: DiffusionPipeline, tmp_path: Path):
    """They store no token: the constant stands for any."""
    older = quantized(pipe, mz.ConstantTokens(1, checked=False))
    older.save_pretrained(tmp_path)
    file = tmp_path / "unet" / "config.json"
    config = json.loads(file.read_text())
    plan = config["quantization_config"]["plan"]
    plan["version"] = 3
    for layer in plan["layers"].values():
        for structure in layer.get("structures", ()):
            del structure["checked"]
    file.write_text(json.dumps(config))
    loaded = UNet2DConditionModel.from_pretrained(tmp_path / "unet")
    names = [name for name in loaded.state_dict() if name.endswith("constant")]
    assert names
    assert not any(name.endswith("known_input") for name in loaded.state_dict())
    served = mz.load(tmp_path)
    assert torch.equal(predicted(served), predicted(older))


def test_the_token_is_saved_and_loaded_with_the_constant(
    constant: DiffusionPipeline, tmp_path: Path
):
    constant.save_pretrained(tmp_path)
    loaded = mz.load(tmp_path)
    assert torch.equal(predicted(loaded, zeros=False), predicted(constant, zeros=False))
    with WARNED:
        predicted(loaded)
    predicted(loaded)
