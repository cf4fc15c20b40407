"""A tiny few-step pipeline, calibrated and measured by MixDQ's means."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from diffusers import DiffusionPipeline

import mezzotint as mz
from mezzotint.models import find_denoiser
from mezzotint.recipes import Job, MixDQ
from mezzotint.recipes.mixdq.method import Method, Setting, calibrated
from tests.models import tiny

PROMPTS = ("owl", "red heart")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One step, so that images are cheap."""
    path = tiny.save_few_step(tmp_path_factory.mktemp("mixdq") / "tiny", tiny.smallest_unet())
    tiny.write_generation(path, num_inference_steps=1, guidance_scale=1.0)
    return path


@pytest.fixture
def pipe(folder: Path) -> DiffusionPipeline:
    return mz.load(folder)


@pytest.fixture(scope="session")
def sampling() -> mz.Sampling:
    return mz.Sampling(prompts=PROMPTS)


@pytest.fixture(scope="session")
def journal(folder: Path, sampling: mz.Sampling) -> Path:
    """Every measurement under the default options; budgets can then be tried for nothing."""
    path = folder.parent / "journal.jsonl"
    options = MixDQ(split="none", selection_prompts=1)
    budget = mz.Budget(weight_bits=5.5)
    mz.quantize(mz.load(folder), options, budget, sampling=sampling, journal=path)
    return path


@pytest.fixture
def prepare(pipe: DiffusionPipeline, sampling: mz.Sampling):
    """Calibrate under some options, without measuring."""

    @contextmanager
    def opened(
        options: MixDQ | None = None,
        *,
        of: DiffusionPipeline | None = None,
        prompts: tuple[str, ...] = PROMPTS,
    ) -> Iterator[Method]:
        chosen = of or pipe
        job = Job(
            pipe=chosen,
            denoiser=find_denoiser(chosen)[1],
            model="tiny",
            budget=mz.Budget(weight_bits=5.5),
            sampling=mz.Sampling(prompts=prompts, steps=1),
        )
        with calibrated(Setting.of(job, options or MixDQ())) as method:
            yield method

    return opened


@pytest.fixture
def quantize(pipe: DiffusionPipeline, sampling: mz.Sampling, journal: Path):
    """Run the recipe on what is measured already."""

    def run(budget: mz.Budget | None = None, **options: object) -> mz.Result:
        chosen = MixDQ(**{"selection_prompts": 1, **options})
        budget = budget or mz.Budget(weight_bits=5.5)
        return mz.quantize(pipe, chosen, budget, sampling=sampling, journal=journal)

    return run
