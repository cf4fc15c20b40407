"""A tiny few-step pipeline, and one measured run of the recipe on it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from diffusers import DiffusionPipeline

import mezzotint as mz
from tests.models import tiny

FORMATS = ("int2/channel", "lut3/channel", "int4/channel", "int6/channel", "int8/channel")
MEASURED = mz.Auto(formats=FORMATS, sensitivity="measured")
"""Every format of every layer is really run."""

PROBED = mz.Auto(formats=FORMATS, sensitivity="probes", probes=8, regret=1e9, exchanges=False)
"""Few probes predict them, and nothing is run."""

NEAREST = replace(
    PROBED,
    formats=("int3/channel", "int8/channel"),
    probes=4,
    smoothing=False,
    rounding="nearest",
    bias_correction="never",
)
"""The same without any of what looks at inputs."""


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny few-step pipeline on disk."""
    return tiny.save_few_step(tmp_path_factory.mktemp("recipes") / "tiny", tiny.smallest_unet())


@pytest.fixture
def pipe(folder: Path) -> DiffusionPipeline:
    return mz.load(folder)


@pytest.fixture(scope="session")
def sampling() -> mz.Sampling:
    return mz.Sampling(prompts=("owl, noto style", "red heart, flat style"))


@pytest.fixture(scope="session")
def journal(folder: Path, sampling: mz.Sampling) -> Path:
    """Every measurement of the tiny model: budgets can then be tried for little."""
    path = folder.parent / "journal.jsonl"
    mz.quantize(mz.load(folder), MEASURED, sampling=sampling, journal=path)
    return path
