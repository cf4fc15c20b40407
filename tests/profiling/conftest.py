"""A tiny pipeline, and its profile by a clock that tells what layers cost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from diffusers import DiffusionPipeline

import mezzotint as mz
from mezzotint.plan import Choice
from mezzotint.profiling import Profile, Timer, profile_pipeline
from tests.models import tiny
from tests.profiling.ticking import Clock, ticking

CHOICES = (
    Choice("int4/channel"),
    Choice("int8/channel"),
    Choice("int8/channel", "int8/token"),
    Choice("int8/channel", "uint8/tensor"),
)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few-step Stable Diffusion of few layers; read only."""
    path = tmp_path_factory.mktemp("profiling") / "tiny"
    pipe = tiny.tiny_stable_diffusion()
    pipe.register_modules(unet=tiny.smallest_unet(attention=False))
    pipe.save_pretrained(path)
    tiny.write_generation(path, num_inference_steps=1, guidance_scale=1.0)
    return path


@pytest.fixture
def pipe(folder: Path) -> DiffusionPipeline:
    return mz.load(folder)


@pytest.fixture
def clock() -> Iterator[Clock]:
    with ticking() as found:
        yield found


@pytest.fixture
def timer(clock: Clock) -> Timer:
    return Timer(repeats=1, most=1, clock=clock)


@pytest.fixture
def profile(pipe: DiffusionPipeline, timer: Timer, tmp_path: Path) -> Profile:
    return profile_pipeline(pipe, choices=CHOICES, cache=tmp_path / "cache.jsonl", timer=timer)
