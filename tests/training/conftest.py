"""A tiny pipeline with guidance, plans of its denoiser, and what is calibrated for them."""

from __future__ import annotations

from pathlib import Path

import pytest
from diffusers import DDIMScheduler, DiffusionPipeline
from torch import nn

from mezzotint.models import Call, find_denoiser, load_pipeline
from tests.models.conftest import pixart_folder, pixart_pipe, unet_folder, unet_pipe  # noqa: F401
from tests.models.tiny import tiny_stable_diffusion, write_generation
from tests.training.students import recorded


@pytest.fixture(scope="session")
def guided_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps of v-prediction under classifier-free guidance; read only."""
    folder = tmp_path_factory.mktemp("models") / "tiny-teacher"
    pipe = tiny_stable_diffusion()
    pipe.scheduler = DDIMScheduler(
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        steps_offset=1,
    )
    pipe.save_pretrained(folder)
    write_generation(folder, num_inference_steps=3, guidance_scale=3.0)
    return folder


@pytest.fixture
def pipe(guided_folder: Path) -> DiffusionPipeline:
    return load_pipeline(guided_folder)


@pytest.fixture
def denoiser(pipe: DiffusionPipeline) -> nn.Module:
    return find_denoiser(pipe)[1]


@pytest.fixture(scope="session")
def calls(guided_folder: Path) -> tuple[Call, ...]:
    """Of each of the three steps."""
    return recorded(load_pipeline(guided_folder))
