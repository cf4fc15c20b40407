"""Prompts that a benchmark trains on, and does not evaluate on."""

from __future__ import annotations

from pathlib import Path

import pytest
from diffusers import DiffusionPipeline

import mezzotint as mz
from benchmarks.contestants.held_out_prompts import without_prompts
from mezzotint.recipes.default_prompts import default_prompts, default_sampling, sampling_beyond
from tests.models.tiny import tiny_stable_diffusion

PROMPTS = [f"owl {number}" for number in range(50)]


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> DiffusionPipeline:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_stable_diffusion().save_pretrained(folder)
    (folder / "prompts.txt").write_text("\n".join(PROMPTS))
    return mz.load(folder)


def test_calibration_and_training_have_the_other_prompts(pipe: DiffusionPipeline, tmp_path: Path):
    other = without_prompts(pipe, PROMPTS[:10], tmp_path)
    sampling = default_sampling(other, 4)
    assert sampling.prompts == tuple(PROMPTS[10:14])
    assert sampling_beyond(other, sampling).prompts == tuple(PROMPTS[10:])


def test_the_model_keeps_its_name_and_its_own_prompts(pipe: DiffusionPipeline, tmp_path: Path):
    other = without_prompts(pipe, PROMPTS[:10], tmp_path)
    assert Path(other.name_or_path).name == "tiny"
    assert default_prompts(pipe) == tuple(PROMPTS)


def test_too_few_that_are_left_are_refused(pipe: DiffusionPipeline, tmp_path: Path):
    with pytest.raises(SystemExit, match="10 prompts are left to train on; evaluate on fewer"):
        without_prompts(pipe, PROMPTS[:40], tmp_path)
    assert not list(tmp_path.iterdir())
