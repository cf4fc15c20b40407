"""A small denoiser whose layers have a scale for each timestep."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mezzotint.formats import MINMAX, as_bits
from mezzotint.plan import Choice, Encoding, Plan
from mezzotint.runtime import Calibration, StepScales, packed_copy
from tests.runtime.layers import noise

TIMESTEPS = (10.0, 500.0, 900.0)
SCALES = (0.3, 0.2, 0.45)
ZERO_POINTS = (7, 9, 5)
STEPS = StepScales(len(TIMESTEPS))


class Denoiser(nn.Module):
    """A convolution of [n, 4, h, 8], and a Linear over its rows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(4, 6, 3, padding=1)
        self.linear = nn.Linear(8, 8)

    def forward(self, sample: Tensor, timestep: Tensor | float, shift: float = 0.0) -> Tensor:
        return self.linear(self.conv(sample)) + shift


def step_tables(
    timesteps: tuple[float, ...] = TIMESTEPS,
    scales: tuple[float, ...] = SCALES,
    zero_points: tuple[int, ...] = ZERO_POINTS,
) -> dict[str, Tensor]:
    return {
        "timestep": as_bits(torch.tensor(timesteps)),
        "step_scale": as_bits(torch.tensor(scales)),
        "step_zero_point": torch.tensor(zero_points, dtype=torch.uint8),
    }


def choice(weight: str = "int4/channel", activation: str = "uint4/step") -> Choice:
    return Choice(weight, activation, (STEPS,))


def packed_denoiser(
    weight: str = "int4/channel",
    activation: str = "uint4/step",
    tables: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """A packed copy of a `Denoiser`."""
    plan = Plan(dict.fromkeys(("conv", "linear"), choice(weight, activation)), encoding=ENCODING)
    tensors = dict.fromkeys(plan.choices, tables or step_tables())
    floating = Denoiser().eval().requires_grad_(False)
    return packed_copy(floating, plan, Calibration(tensors=tensors))


def batch(samples: int = 1, seed: int = 0) -> Tensor:
    return noise(samples, 4, 8, 8, seed=seed)


ENCODING = Encoding(MINMAX)
