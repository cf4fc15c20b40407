"""Guided step distillation: one step of the student stands for several of the teacher."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from tools.emoji.config import Diffusion, Schedule
from tools.emoji.denoiser import Latents, Process, TextScaled
from tools.emoji.training import Trainer


def distill(
    teacher: TextScaled,
    data: Latents,
    diffusion: Diffusion,
    schedule: Schedule,
    directory: Path,
) -> TextScaled:
    """Train a copy of `teacher` to walk its guided trajectory in `turbo_steps` DDIM steps.

    Progressive distillation (Salimans & Ho 2022) in one stage, with classifier-free guidance folded
    in (Meng et al. 2023). The states come from the teacher's own trajectories, from pure noise to
    the image: the same that the student will see when it samples, and no picture is needed.
    """
    process = Process(diffusion)
    device = next(teacher.parameters()).device
    teacher = teacher.requires_grad_(False).eval()
    student = copy.deepcopy(teacher).requires_grad_(True).train()
    steps = diffusion.turbo_steps * diffusion.solver_substeps
    # The last step, to -1, ends in the image itself.
    times = [diffusion.train_steps * left // steps - 1 for left in range(steps, -1, -1)]
    landmarks = times[:: diffusion.solver_substeps]

    def guided(z: Tensor, t: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        empty_text = data.text[-1:].to(device).expand_as(text)
        empty_mask = data.mask[-1:].to(device).expand_as(mask)
        v = teacher(
            torch.cat([z, z]), torch.cat([t, t]), torch.cat([text, empty_text]),
            torch.cat([mask, empty_mask]),
        )  # fmt: skip
        conditional, unconditional = v.float().chunk(2)
        return unconditional + diffusion.guidance * (conditional - unconditional)

    def loss(generator: torch.Generator) -> Tensor:
        count = schedule.batch // diffusion.turbo_steps
        _, captions = data.draw(count, 0.0, generator)
        text, mask = data.text[captions].to(device), data.mask[captions].to(device)
        z = torch.randn(count, *data.images.shape[1:], generator=generator).to(device)
        errors = []
        for index, (start, end) in enumerate(itertools.pairwise(landmarks)):
            t = torch.full((count,), start, device=device)
            predicted = student(z, t, text, mask).float()
            moved = z
            with torch.no_grad():
                first = index * diffusion.solver_substeps
                path = times[first : first + diffusion.solver_substeps + 1]
                for here, there in itertools.pairwise(path):
                    now = torch.full_like(t, here)
                    x0, noise = process.split(moved, guided(moved, now, text, mask), now)
                    moved = process.noisy(x0, noise, torch.full_like(t, there))
                target = process.velocity_between(z, t, moved, torch.full_like(t, end))
            errors.append(mse_loss(predicted, target))
            z = moved
        return torch.stack(errors).mean()

    average = Trainer(student, schedule, directory).fit(loss)
    assert isinstance(average, TextScaled)
    return average
