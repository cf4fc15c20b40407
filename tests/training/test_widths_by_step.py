"""Students of layers whose inputs have a width for each timestep."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mezzotint.formats import parse_activation_format
from mezzotint.models import Call
from mezzotint.plan import Choice, Plan
from mezzotint.runtime import StepWidths
from mezzotint.training.learned_inputs import LearnedInput
from tests.training.students import (
    layer_differences,
    layers_of,
    packed,
    shaken,
    student_of,
)

BITS = (6, 2, 4)


@pytest.fixture
def plan(denoiser: nn.Module) -> Plan:
    choice = Choice("uint2/channel", "uint8/step", (StepWidths(3, BITS),))
    return Plan(dict.fromkeys(layers_of(denoiser), choice))


@pytest.mark.parametrize("trained", [False, True], ids=["start", "trained"])
def test_every_layer_computes_what_is_packed_of_it(
    denoiser: nn.Module, calls: tuple[Call, ...], plan: Plan, trained: bool
):
    student = student_of(denoiser, calls, plan)
    if trained:
        shaken(student, 0.05)
    found = packed(student)
    for call in calls:
        assert max(layer_differences(student, found, call).values()) < 1e-3


def test_at_each_timestep_there_are_no_more_values_than_its_codes():
    timesteps = torch.tensor([10.0, 500.0, 900.0])
    rounding = LearnedInput(
        parse_activation_format("uint8/step"),
        torch.tensor([0.1, 0.5, 0.3]),
        torch.tensor([30.0, 1.0, 8.0]),
        timesteps,
        torch.tensor(BITS, dtype=torch.float32),
    )
    x = torch.linspace(-20, 20, 4000).view(4, -1)
    for t, bits in zip(timesteps, BITS, strict=True):

        def at(t: Tensor = t) -> Tensor:
            return t.view(1)

        assert len(rounding(x, at).unique()) == 2**bits


def test_scales_and_zero_points_of_clamped_inputs_are_learned():
    rounding = LearnedInput(
        parse_activation_format("uint8/step"),
        torch.tensor([0.1, 0.5]),
        torch.tensor([3.0, 1.0]),
        torch.tensor([10.0, 500.0]),
        torch.tensor([3.0, 2.0]),
    )
    rounding(torch.full((2, 3), 50.0), lambda: torch.tensor([500.0])).sum().backward()
    # All have the highest code, 3: each is (3 - 1) Δ.
    assert rounding.log_scale.grad.tolist() == pytest.approx([0.0, 6 * 2 * 0.5])
    assert rounding.zero_point.grad.tolist() == pytest.approx([0.0, -6 * 0.5])
