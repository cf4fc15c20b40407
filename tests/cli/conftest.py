"""A tiny pipeline on disk, its quantized copy, and a way to run the command on them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from typer.testing import CliRunner

import mezzotint as mz
from mezzotint.cli import app
from tests.models import tiny


def smallest_unet() -> UNet2DConditionModel:
    """Few layers: each costs six measurements."""
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8,),
        down_block_types=("DownBlock2D",),
        mid_block_type=None,
        up_block_types=("UpBlock2D",),
        layers_per_block=1,
        cross_attention_dim=tiny.TEXT_WIDTH,
        norm_num_groups=4,
    )


@pytest.fixture
def run():
    """Run the command in this process; returns exit code, stdout and stderr."""

    def invoke(*arguments: object):
        return CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)

    return invoke


@pytest.fixture
def fails(run):
    """Run a command that must fail the agreed way; returns the message."""

    def invoke(*arguments: object) -> str:
        result = run(*arguments)
        assert result.exit_code == 2
        assert result.stdout == ""
        *noise, line = result.stderr.splitlines()
        assert not [each for each in noise if "Traceback" in each or "error" in each]
        assert line.startswith("error: ")
        return line.removeprefix("error: ")

    return invoke


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few-step Stable Diffusion with 16×16 images; read only."""
    folder = tmp_path_factory.mktemp("models") / "tiny-turbo"
    pipe = tiny.tiny_stable_diffusion()
    pipe.register_modules(unet=smallest_unet())
    pipe.save_pretrained(folder)
    tiny.write_generation(folder, num_inference_steps=1, guidance_scale=1.0)
    (folder / "prompts.txt").write_text("owl\napple\n")
    return folder


@pytest.fixture(scope="session")
def uniform(model: Path) -> mz.Plan:
    """Eight bits everywhere."""
    return mz.uniform_plan(mz.load(model).unet, weight_bits=8, act_bits=8, model="tiny-turbo")


@pytest.fixture(scope="session")
def quantized(model: Path, uniform: mz.Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model after that plan; read only."""
    return mz.apply(mz.load(model), uniform).save(tmp_path_factory.mktemp("quantized") / "w8a8")
