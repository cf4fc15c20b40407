"""Relations between the positions of a feature map, averaged over denoising steps, and their loss.

MPQ-DM (arXiv 2412.11549), time-smoothed relation distillation. The features are the input of the
denoiser's output norm, of both halves of guidance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax, normalize
from torch.utils.checkpoint import checkpoint

from mezzotint.errors import ModelError
from mezzotint.models import Call

WHOLE = 1024
"""Positions whose relations are held at once; of more, those of so many rows are computed again."""


@torch.no_grad()
def output_norm(denoiser: nn.Module, call: Call) -> nn.Module:
    """The norm before the output: the last that a call runs.

    Raises:
        ModelError: there is none.
    """
    last: list[nn.Module] = []

    def note(module: nn.Module, *_: object) -> None:
        last[:] = [module]

    norms = [each for each in denoiser.modules() if "Norm" in type(each).__name__]
    hooks = [norm.register_forward_pre_hook(note) for norm in norms]
    try:
        call.run(denoiser)
    finally:
        for hook in hooks:
            hook.remove()
    if not last:
        raise ModelError(
            f"{type(denoiser).__name__} has no norm whose input could be compared; train with "
            "feature_loss='none'"
        )
    return last[0]


@contextmanager
def capturing(norm: nn.Module | None) -> Iterator[list[Tensor]]:
    """A list that gets the input of each run of the norm meanwhile; none where there is no norm."""
    found: list[Tensor] = []
    if norm is None:
        yield found
        return

    def take(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found.append(inputs[0])

    hook = norm.register_forward_pre_hook(take)
    try:
        yield found
    finally:
        hook.remove()


def relation_loss(
    teacher: Sequence[Tensor], student: Sequence[Tensor], temperature: float
) -> Tensor:
    """Σ KL(teacher ‖ student) over all positions of all maps: float32 [].

    The features of several denoising steps are averaged and normalized over their channels; the
    cosine similarities of each position with all others go through a softmax.

    Args:
        teacher: feature maps [n, c, h, w] or [n, positions, c], one for each step.
        student: likewise.
        temperature: of the softmax.
    """
    ours, theirs = (_normalized(features) for features in (student, teacher))
    rows = partial(_divergence, temperature=temperature)
    positions = ours.shape[1]
    if positions <= WHOLE:
        return rows(ours, ours, theirs, theirs)
    pieces = zip(torch.split(ours, WHOLE, 1), torch.split(theirs, WHOLE, 1), strict=True)
    losses = [
        checkpoint(rows, mine, ours, other, theirs, use_reentrant=False) for mine, other in pieces
    ]
    return torch.stack(losses).sum()


def feature_distance(teacher: Sequence[Tensor], student: Sequence[Tensor]) -> Tensor:
    """Σ squared differences of the features, averaged over the steps: float32 []."""
    ours, theirs = (torch.stack([*each]).float().mean(0) for each in (student, teacher))
    return (ours - theirs.detach()).square().sum()


def _normalized(features: Sequence[Tensor]) -> Tensor:
    """[n, positions, c] of length 1, float32."""
    mean = torch.stack([*features]).float().mean(0)
    if mean.ndim == 4:
        mean = mean.flatten(2).transpose(1, 2)
    return normalize(mean, dim=-1)


def _divergence(
    mine: Tensor, ours: Tensor, other: Tensor, theirs: Tensor, temperature: float
) -> Tensor:
    """Divergence at some positions of the student (`mine`) and the teacher (`other`), summed."""
    with torch.autocast(mine.device.type, enabled=False):
        student = log_softmax(mine @ ours.transpose(1, 2) / temperature, -1)
        teacher = log_softmax(other @ theirs.transpose(1, 2) / temperature, -1)
        return kl_div(student, teacher.detach(), reduction="sum", log_target=True)
