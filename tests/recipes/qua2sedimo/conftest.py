"""A tiny pipeline, and labels of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from diffusers import DiffusionPipeline

import mezzotint as mz
from mezzotint.recipes.label_options import SampleOptions
from mezzotint.recipes.labelling import sample_labels
from tests.models import tiny

FORMATS = ("kmeans3/tensor", "uint3/channel", "kmeans4/channel", "uint4/channel")

LABELS = SampleOptions(count=40, formats=FORMATS, metric="noise", images=8)


@pytest.fixture(scope="session")
def smallest_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline around the smallest U-Net; one step, and prompts of its own."""
    folder = tmp_path_factory.mktemp("qua2sedimo") / "tiny"
    pipe = tiny.tiny_stable_diffusion()
    pipe.register_modules(unet=tiny.smallest_unet())
    pipe.save_pretrained(folder)
    tiny.write_generation(folder, num_inference_steps=1, guidance_scale=1.0)
    (folder / "prompts.txt").write_text("owl\nred apple\nblue bird\ngreen frog\n")
    return folder


@pytest.fixture(scope="session")
def labels_folder(smallest_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels by noise; read only."""
    folder = tmp_path_factory.mktemp("labels") / "noise"
    sample_labels(mz.load(smallest_folder), folder, LABELS)
    return folder


@pytest.fixture
def pipe(smallest_folder: Path) -> DiffusionPipeline:
    return mz.load(smallest_folder)
