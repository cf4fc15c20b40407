"""A tiny pipeline on disk, its quantized copy, and a way to run the command on them."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

import mezzotint as mz
from mezzotint.cli import app
from tests.models import tiny

#: Options of `quantize`: every part of the default recipe, with two formats to choose from.
TWO_FORMATS = ("--formats", "int3/channel,int8/channel", "--calls", 1)

#: And no more than the first probes.
BRIEF = (*TWO_FORMATS, "--probes", 8, "--regret", 1e9, "--no-exchanges", "--no-smoothing")


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
    pipe.register_modules(unet=tiny.smallest_unet(attention=False))
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
