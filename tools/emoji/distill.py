"""Latent consistency distillation: guidance folded in, 1–4 steps."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor

from tools.emoji.config import Diffusion, Schedule
from tools.emoji.denoiser import Latents, Process, TextScaled
from tools.emoji.training import Trainer

TIMESTEP_SCALING = 10.0
SIGMA_DATA = 0.5
HUBER = 0.01


def boundary(t: Tensor) -> tuple[Tensor, Tensor]:
    """c_skip and c_out of LCMScheduler (Luo et al. 2023, eq. 9)."""
    scaled = (t.float() * TIMESTEP_SCALING).view(-1, 1, 1, 1)
    variance = scaled.square() + SIGMA_DATA**2
    return SIGMA_DATA**2 / variance, scaled / variance.sqrt()


def distill(
    teacher: TextScaled,
    data: Latents,
    diffusion: Diffusion,
    schedule: Schedule,
    directory: Path,
) -> TextScaled:
    """Train a copy of `teacher` to jump to x0 from every step of a DDIM solver.

    The target is the student itself (no gradient) one solver step closer to the image, where the
    step is the teacher's, with classifier-free guidance of `diffusion.guidance`.
    """
    process = Process(diffusion)
    device = next(teacher.parameters()).device
    teacher = teacher.requires_grad_(False).eval()
    student = copy.deepcopy(teacher).requires_grad_(True).train()
    stride = diffusion.train_steps // diffusion.solver_steps
    grid = torch.arange(1, diffusion.solver_steps + 1) * stride - 1

    def consistency(x: Tensor, t: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        x0, _ = process.split(x, student(x, t, text, mask).float(), t)
        skip, out = boundary(t)
        return skip * x + out * x0

    def solver_step(x: Tensor, t: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """One guided DDIM step of the teacher from t to t - stride (or to the image itself)."""
        empty_text = data.text[-1:].expand_as(text.cpu()).to(device)
        empty_mask = data.mask[-1:].expand_as(mask.cpu()).to(device)
        v = teacher(
            torch.cat([x, x]), torch.cat([t, t]), torch.cat([text, empty_text]),
            torch.cat([mask, empty_mask]),
        )  # fmt: skip
        conditional, unconditional = v.float().chunk(2)
        guided = unconditional + diffusion.guidance * (conditional - unconditional)
        x0, noise = process.split(x, guided, t)
        earlier = t - stride
        moved = process.noisy(x0, noise, earlier.clamp(min=0))
        return torch.where((earlier < 0).view(-1, 1, 1, 1), x0, moved)

    def loss(generator: torch.Generator) -> Tensor:
        rows, captions = data.draw(schedule.batch, 0.0, generator)
        x0 = data.images[rows].to(device)
        noise = torch.randn(x0.shape, generator=generator).to(device)
        t = grid[torch.randint(len(grid), (len(rows),), generator=generator)].to(device)
        text, mask = data.text[captions].to(device), data.mask[captions].to(device)
        x = process.noisy(x0, noise, t)
        with torch.no_grad():
            closer = solver_step(x, t, text, mask)
            target = consistency(closer, (t - stride).clamp(min=0), text, mask)
            target = torch.where((t < stride).view(-1, 1, 1, 1), closer, target)
        error = consistency(x, t, text, mask) - target
        return ((error.square() + HUBER**2).sqrt() - HUBER).mean()

    average = Trainer(student, schedule, directory).fit(loss)
    assert isinstance(average, TextScaled)
    return average
