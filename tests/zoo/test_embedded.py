"""The embedded models: ordinary diffusers folders with the topology of the big ones."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    DiffusionPipeline,
    EulerDiscreteScheduler,
    LCMScheduler,
    PixArtSigmaPipeline,
    StableDiffusionPipeline,
)

import mezzotint as mz
from mezzotint.evaluation import stored_bytes
from mezzotint.models import Role, find_denoiser, inventory
from mezzotint.runtime import module_bytes

ZOO = Path(str(resources.files("mezzotint"))) / "zoo"
MODELS = ("emoji-teacher", "emoji-turbo", "emoji-dit")
UNETS = MODELS[:2]


@pytest.fixture(scope="module")
def pipes() -> dict[str, DiffusionPipeline]:
    return {name: mz.load(name) for name in MODELS}


def test_three_pipelines_and_the_contrastive_pair_are_shipped():
    assert mz.list_embedded() == tuple(sorted(MODELS))
    assert (ZOO / "emoji-clip" / "image_encoder").is_dir()


def test_together_they_stay_small():
    sizes = [path.stat().st_size for path in ZOO.rglob("*") if path.is_file()]
    assert sum(sizes) <= 90 * 2**20
    assert max(sizes) < 16 * 2**20


def test_only_safetensors_and_text_are_shipped():
    suffixes = {path.suffix for path in ZOO.rglob("*") if path.is_file()}
    assert suffixes <= {".safetensors", ".json", ".txt", ".md"}


@pytest.mark.parametrize("name", MODELS)
def test_each_has_a_model_card_with_measured_figures(name):
    card = (ZOO / name / "README.md").read_text("utf-8")
    assert "R-precision" in card
    assert "FD-Lite0" in card


@pytest.mark.parametrize("name", UNETS)
@pytest.mark.parametrize(
    "role",
    [
        Role.SELF_ATTENTION_Q,
        Role.CROSS_ATTENTION_K,
        Role.CROSS_ATTENTION_V,
        Role.FEED_FORWARD_IN,
        Role.TIME_PROJECTION,
        Role.SHORTCUT,
        Role.DOWNSAMPLE,
        Role.UPSAMPLE,
    ],
    ids=str,
)
def test_the_unet_has_what_the_big_ones_have(pipes, name, role):
    assert any(layer.role == role for layer in inventory(pipes[name].unet))


def test_every_up_block_resnet_joins_a_skip(pipes):
    shortcuts = [n for n, _ in pipes["emoji-turbo"].unet.named_modules() if "conv_shortcut" in n]
    assert sum(name.startswith("up_blocks") for name in shortcuts) == 6


def test_the_transformer_attends_to_text(pipes):
    roles = {layer.role for layer in inventory(pipes["emoji-dit"].transformer)}
    assert {Role.SELF_ATTENTION_Q, Role.CROSS_ATTENTION_K, Role.MODULATION} <= roles


@torch.inference_mode()
def test_token_0_is_a_constant_outlier_of_clips_magnitude(pipes):
    pipe = pipes["emoji-turbo"]
    prompts = ["owl, noto style", "red heart, flat style"]
    ids = pipe.tokenizer(prompts, padding="max_length", return_tensors="pt").input_ids
    hidden = pipe.text_encoder(ids).last_hidden_state
    peaks = hidden.abs().amax(-1)
    assert peaks[:, 0].min() > 60 * peaks[:, 1:].mean()
    assert torch.equal(hidden[0, 0], hidden[1, 0])
    assert not torch.equal(hidden[0, 1], hidden[1, 1])
    concentrated = hidden[0, 0].abs().topk(4).values.square().sum() / hidden[0, 0].square().sum()
    assert concentrated > 0.99


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers'
@pytest.mark.parametrize("scheduler", [LCMScheduler, EulerDiscreteScheduler])
def test_stock_stable_diffusion_loads_and_runs_the_unet_models(scheduler):
    pipe = StableDiffusionPipeline.from_pretrained(ZOO / "emoji-turbo")
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    images = pipe("owl, noto style", num_inference_steps=2, guidance_scale=1.0, output_type="np")
    assert images.images.shape == (1, 64, 64, 3)


def test_stock_pixart_loads_the_transformer(pipes):
    assert isinstance(pipes["emoji-dit"], PixArtSigmaPipeline)
    assert pipes["emoji-dit"]("owl, noto style", output_type="np").images.shape == (1, 64, 64, 3)


@pytest.mark.parametrize("name", ["emoji-turbo", "emoji-dit"])
def test_the_prompt_decides_the_picture(pipes, name):
    prompts = ("red heart, noto style", "deciduous tree, noto style")
    images = mz.generate(pipes[name], mz.Sampling(prompts, seed=3)).astype(float)
    red, green = images[..., 0].mean((1, 2)), images[..., 1].mean((1, 2))
    assert red[0] - green[0] > red[1] - green[1] + 20


@pytest.mark.parametrize("name", ["emoji-turbo", "emoji-dit"])
def test_four_bits_take_less_than_three_tenths_of_fp16(pipes, name, tmp_path):
    component, denoiser = find_denoiser(pipes[name])
    parameters = sum(p.numel() for p in denoiser.parameters())
    result = mz.apply(pipes[name], mz.uniform_plan(denoiser, weight_bits=4, act_bits=8))
    folder = result.save(tmp_path / name)
    stored = stored_bytes(folder / component)
    assert stored <= 0.30 * 2 * parameters
    loaded = find_denoiser(mz.load(folder))[1]
    assert module_bytes(loaded) == pytest.approx(stored, rel=0.02)


def test_a_reloaded_model_draws_the_same_pictures(pipes, tmp_path):
    pipe = pipes["emoji-turbo"]
    result = mz.apply(pipe, mz.uniform_plan(pipe.unet, weight_bits=4, act_bits=8))
    sampling = mz.Sampling(("owl, noto style", "pizza, flat style"))
    loaded = mz.load(result.save(tmp_path / "owl"))
    assert np.array_equal(mz.generate(result.pipeline, sampling), mz.generate(loaded, sampling))
