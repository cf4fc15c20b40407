"""Tiny pipelines of two denoising steps, and the recipe without training on them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel

import mezzotint as mz
from mezzotint.formats import MINMAX
from tests.models import tiny

PROMPTS = ("owl, noto style", "red heart, flat style")


def small_unet() -> UNet2DConditionModel:
    """Layers of every role, and few of each."""
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        mid_block_type=None,
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=tiny.TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
    )


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A U-Net, with guidance."""
    path = tmp_path_factory.mktemp("mpqdm") / "tiny"
    pipe = tiny.tiny_stable_diffusion()
    pipe.register_modules(unet=small_unet())
    pipe.save_pretrained(path)
    tiny.write_generation(path, num_inference_steps=2, guidance_scale=2.0)
    return path


@pytest.fixture(scope="session")
def sampling() -> mz.Sampling:
    return mz.Sampling(prompts=PROMPTS)


@pytest.fixture(scope="session")
def pipe(folder: Path) -> DiffusionPipeline:
    return mz.load(folder)


@pytest.fixture(scope="session")
def quantize(pipe: DiffusionPipeline, sampling: mz.Sampling):
    """The recipe's result; the same one for the same options."""
    made: dict[tuple[object, ...], mz.Result] = {}

    def run(weight_bits: int = 2, act_bits: int = 4, **options: object) -> mz.Result:
        key = weight_bits, act_bits, *sorted(options.items())
        if key not in made:
            chosen = mz.MPQDM(**{"train_steps": 0, "ranges": MINMAX, **options})
            budget = mz.Budget(weight_bits=weight_bits, act_bits=act_bits)
            made[key] = mz.quantize(pipe, chosen, budget, sampling=sampling)
        return made[key]

    return run
