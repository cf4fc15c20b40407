"""Quantized checkpoints on disk."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from diffusers import UNet2DConditionModel

import mezzotint as mz
from tests.checkpoint import packed
from tests.models import tiny


@pytest.fixture(scope="session")
def unet() -> UNet2DConditionModel:
    """A UNet packed in memory with a mixture of formats; read only."""
    return packed.packed_unet()


@pytest.fixture(scope="session")
def unet_folder(unet: UNet2DConditionModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, saved; read only."""
    folder = tmp_path_factory.mktemp("hub") / "unet"
    unet.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def float_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A floating-point pipeline with all that may lie beside it; read only."""
    folder = tiny.save_few_step(tmp_path_factory.mktemp("hub") / "tiny")
    (folder / "prompts.txt").write_text("owl\nred fox\n")
    (folder / "NOTICE").write_text("Drawn by nobody.\n")
    return folder


@pytest.fixture(scope="session")
def result(float_folder: Path) -> mz.Result:
    """The pipeline at W4A8; read only."""
    pipe = mz.load(float_folder)
    return mz.apply(pipe, mz.uniform_plan(pipe.unet, weight_bits=4, act_bits=8, model="tiny"))


@pytest.fixture(scope="session")
def saved(result: mz.Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, saved; read only."""
    return result.save(tmp_path_factory.mktemp("hub") / "tiny-w4a8")


@pytest.fixture
def saved_copy(saved: Path, tmp_path: Path) -> Path:
    """The same, for tests that damage it."""
    return shutil.copytree(saved, tmp_path / saved.name)
