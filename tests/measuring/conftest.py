"""A tiny denoiser and calls of it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import nn

from mezzotint.models import Call
from tests.models.conftest import (  # noqa: F401 - fixtures
    pipe,
    pixart_folder,
    pixart_pipe,
    unet_folder,
    unet_pipe,
)
from tests.models.tiny import TEXT_WIDTH, tiny_unet


@torch.no_grad()
def recorded_calls(denoiser: nn.Module, timesteps: Sequence[int] = (999, 499)) -> tuple[Call, ...]:
    """A batch of two noisy latents and prompts at each timestep, with the denoiser's output."""
    generator = torch.Generator().manual_seed(0)
    calls = []
    for step, timestep in enumerate(timesteps):
        latents = torch.randn(2, 4, 8, 8, generator=generator)
        text = torch.randn(2, 5, TEXT_WIDTH, generator=generator)
        arguments = {"encoder_hidden_states": text, "return_dict": False}
        call = Call((latents, torch.tensor(timestep)), arguments, step=step, timestep=timestep)
        output = call.run(denoiser)
        calls.append(Call(call.args, call.kwargs, output, step, timestep))
    return tuple(calls)


@pytest.fixture
def unet() -> nn.Module:
    return tiny_unet().eval()


@pytest.fixture
def calls(unet: nn.Module) -> tuple[Call, ...]:
    return recorded_calls(unet)
