"""A tiny few-step pipeline, and one measured run of the recipe on it."""

from __future__ import annotations

from pathlib import Path

import pytest
from diffusers import DiffusionPipeline

import mezzotint as mz
from tests.models import tiny


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny few-step pipeline on disk."""
    path = tmp_path_factory.mktemp("recipes") / "tiny"
    tiny.tiny_stable_diffusion().save_pretrained(path)
    tiny.write_generation(path, num_inference_steps=2, guidance_scale=1.0)
    return path


@pytest.fixture
def pipe(folder: Path) -> DiffusionPipeline:
    return mz.load(folder)


@pytest.fixture(scope="session")
def sampling() -> mz.Sampling:
    return mz.Sampling(prompts=("owl, noto style", "red heart, flat style"))


@pytest.fixture(scope="session")
def journal(folder: Path, sampling: mz.Sampling) -> Path:
    """Every measurement of the tiny model: budgets can then be tried for nothing."""
    path = folder.parent / "journal.jsonl"
    mz.quantize(mz.load(folder), sampling=sampling, journal=path)
    return path
