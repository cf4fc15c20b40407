"""The losses of one update: the guided outputs of one or several denoising steps, and features."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from mezzotint.training.options import Training
from mezzotint.training.relation import feature_distance, relation_loss


@dataclass(eq=False)
class Window:
    """Outputs and features of consecutive denoising steps, and what is lost on them.

    Errors are sums of squares over the guided outputs, over the number of their elements; the
    feature loss is divided by the same number, so that λ weighs sums as MPQ-DM does.

    Attributes:
        options: say which losses there are.
        errors: Σ(y - ŷ)² of each step that is not yet learned from, differentiable.
        energies: Σy² likewise.
        elements: of the guided output of one step.
        teacher: features of each step of the window.
        student: likewise; those of updates before are without gradients.
        steps: denoising steps of the window so far.
        ended: whether the trajectory has ended before the window had all of its steps.
    """

    options: Training
    errors: list[Tensor] = field(default_factory=list)
    energies: list[float] = field(default_factory=list)
    elements: int = 1
    teacher: list[Tensor] = field(default_factory=list)
    student: list[Tensor] = field(default_factory=list)
    steps: int = 0
    ended: bool = False

    def add(self, y: Tensor, student: Tensor, features: tuple[list[Tensor], list[Tensor]]) -> None:
        """One denoising step: guided outputs of both models, and what both gave their output norm.

        Args:
            y: of the teacher.
            student: ŷ.
            features: of the teacher and the student; empty where there is no feature loss.
        """
        self.errors.append((y - student).square().sum())
        self.energies.append(float(y.square().sum()))
        self.elements = y.numel()
        self.teacher += features[0]
        self.student += features[1]
        self.steps += 1

    @property
    def full(self) -> bool:
        """True where no step of the window is to come."""
        return self.ended or self.steps >= self.options.window

    @property
    def relative(self) -> list[float]:
        """‖y - ŷ‖²/‖y‖² of each step that is not yet learned from."""
        tiny = torch.finfo(torch.float64).tiny
        pairs = zip(self.errors, self.energies, strict=True)
        return [float(error.detach()) / max(energy, tiny) for error, energy in pairs]

    def main(self) -> Tensor:
        """The loss on outputs."""
        return torch.stack(self.errors).sum() / self.elements

    def features(self) -> Tensor | None:
        """The weighted loss on features of the whole window; None where there is none."""
        options = self.options
        if options.feature_loss == "none" or not self.student:
            return None
        if options.feature_loss == "l2":
            loss = feature_distance(self.teacher, self.student)
        else:
            loss = relation_loss(self.teacher, self.student, options.temperature)
        return options.relation_weight * loss / self.elements

    def learned(self) -> None:
        """Take note of an update within the window: what came before it has no gradient."""
        self.errors.clear()
        self.energies.clear()
        self.student = [each.detach() for each in self.student]
