"""Tiny pipelines on disk and in memory."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from diffusers import DiffusionPipeline

from mezzotint.models import load_pipeline
from tests.models import tiny


@pytest.fixture(scope="session")
def unet_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few-step Stable Diffusion with 16×16 images; read only."""
    return tiny.save_few_step(tmp_path_factory.mktemp("models") / "tiny-turbo")


@pytest.fixture(scope="session")
def pixart_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PixArt-Sigma pipeline with classifier-free guidance; read only."""
    folder = tmp_path_factory.mktemp("models") / "tiny-pixart"
    tiny.tiny_pixart_sigma().save_pretrained(folder)
    tiny.write_generation(
        folder,
        num_inference_steps=2,
        guidance_scale=2.0,
        max_sequence_length=tiny.TEXT_TOKENS,
        use_resolution_binning=False,
        clean_caption=False,
    )
    return folder


@pytest.fixture
def unet_copy(unet_folder: Path, tmp_path: Path) -> Path:
    """The same folder, for tests that damage it."""
    return shutil.copytree(unet_folder, tmp_path / "tiny-turbo")


@pytest.fixture
def unet_pipe(unet_folder: Path) -> DiffusionPipeline:
    return load_pipeline(unet_folder)


@pytest.fixture
def pixart_pipe(pixart_folder: Path) -> DiffusionPipeline:
    return load_pipeline(pixart_folder)


@pytest.fixture(params=["unet_pipe", "pixart_pipe"], ids=["unet", "transformer"])
def pipe(request: pytest.FixtureRequest) -> DiffusionPipeline:
    """Each kind of pipeline in turn."""
    return request.getfixturevalue(request.param)
