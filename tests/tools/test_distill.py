"""The arithmetic of step distillation, on plain tensors and a toy teacher."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tools.emoji.config import Diffusion, Schedule
from tools.emoji.denoiser import Latents, Process, scheduler
from tools.emoji.distill import distill

DIFFUSION = Diffusion()
PROCESS = Process(DIFFUSION)


@pytest.mark.parametrize(("start", "end"), [(999, 749), (749, 499), (249, -1), (999, -1)])
def test_one_step_with_the_found_velocity_leads_to_the_end(start: int, end: int):
    x, goal = torch.randn(2, 3, 4, 8, 8).unbind()
    t, s = torch.full((3,), start), torch.full((3,), end)
    v = PROCESS.velocity_between(x, t, goal, s)
    x0, noise = PROCESS.split(x, v, t)
    torch.testing.assert_close(PROCESS.noisy(x0, noise, s), goal, atol=2e-5, rtol=1e-4)


def test_it_is_the_step_that_the_sampler_takes():
    sampler = scheduler(DIFFUSION)
    sampler.set_timesteps(DIFFUSION.turbo_steps)
    x, goal = torch.randn(2, 1, 4, 8, 8).unbind()
    for index, start in enumerate(sampler.timesteps.tolist()):
        end = start - DIFFUSION.train_steps // DIFFUSION.turbo_steps
        v = PROCESS.velocity_between(x, torch.tensor([start]), goal, torch.tensor([end]))
        assert start == DIFFUSION.train_steps * (4 - index) // 4 - 1
        step = sampler.step(v, start, x).prev_sample
        torch.testing.assert_close(step, goal, atol=1e-4, rtol=1e-3)


class Toy(nn.Module):
    """Predicts the same velocity everywhere, plus what the text says."""

    def __init__(self) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.zeros(1, 4, 1, 1))

    def forward(self, x: Tensor, t: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        return self.level + text.mean((1, 2)).view(-1, 1, 1, 1) + 0.0 * x


def test_a_student_in_training_moves_away_from_its_teacher(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("tools.emoji.distill.TextScaled", Toy)
    text = torch.stack([torch.full((2, 3), 0.5), torch.zeros(2, 3)])
    data = Latents(torch.zeros(1, 4, 8, 8), text, torch.ones(2, 2), torch.tensor([0]))
    schedule = Schedule(steps=5, batch=8, lr=0.1, warmup=1)
    student = distill(Toy(), data, DIFFUSION, schedule, tmp_path / "student")
    assert student.level.abs().max() > 0
    assert (tmp_path / "student" / "checkpoint.safetensors").exists()
