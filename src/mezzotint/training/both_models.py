"""Teacher and student side by side: their outputs and features, and gradients of what is lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from mezzotint.measuring.checkpointing import gradient_checkpointing, needs_checkpointing
from mezzotint.models import Call
from mezzotint.training.options import Training
from mezzotint.training.precision import Precision
from mezzotint.training.relation import capturing, output_norm
from mezzotint.training.student import Student
from mezzotint.training.trajectories import Guidance
from mezzotint.training.window import Window

Losses = tuple[Tensor, Tensor | None]
"""The main loss of an update, and that of features, where there is one."""


class BothModels:
    """A student and its teacher, as they are run and differentiated in training."""

    def __init__(
        self, student: Student, pipe: DiffusionPipeline, options: Training, precision: Precision
    ) -> None:
        """Begin; nothing is run yet.

        Args:
            student: of the pipeline's denoiser.
            pipe: gives the guidance.
            options: say what is compared.
            precision: of both models' passes.
        """
        self.student, self.options, self._precision = student, options, precision
        self._guidance = Guidance.of(pipe, student.denoiser)
        self._norm: nn.Module | None = None
        self._blocks_again: bool | None = options.checkpointing

    @torch.enable_grad()
    def run(self, call: Call, window: Window) -> tuple[Tensor, Tensor]:
        """Outputs of teacher and student; the window takes them as its next step."""
        self._prepare(call)
        with torch.no_grad(), self._precision.computing(), capturing(self._norm) as theirs:
            teacher = call.run(self.student.denoiser)
        with self._computing() as denoiser:
            with capturing(self._norm) as ours:
                found = call.run(denoiser)
            y, guided = (self._guidance.guided(o, self.options.batch) for o in (teacher, found))
            window.add(y, guided, (theirs, ours))
        return teacher, found

    def differentiate(self, losses: Losses) -> None:
        """Give all that is trained the gradient of the sum of a main loss and one of features."""
        main, features = losses
        loss = main if features is None else main + features
        with self._computing():
            loss.backward()  # type: ignore[no-untyped-call]

    def compare(self, losses: Losses, parameters: Sequence[nn.Parameter]) -> float | None:
        """The same, and the norm of the second loss's gradient over that of the first one's.

        Args:
            losses: of outputs and of features.
            parameters: all that is trained.
        """
        main, features = losses
        if features is None:
            self.differentiate(losses)
            return None
        with self._computing():
            kept, other = (
                torch.autograd.grad(loss, parameters, retain_graph=first, allow_unused=True)
                for loss, first in ((main, True), (features, False))
            )
        for parameter, *pair in zip(parameters, kept, other, strict=True):
            found = [each for each in pair if each is not None]
            parameter.grad = torch.stack(found).sum(0) if found else None
        norms = [
            float(nn.utils.get_total_norm([each for each in part if each is not None]))
            for part in (kept, other)
        ]
        return norms[1] / norms[0] if norms[0] else None

    def _prepare(self, call: Call) -> None:
        """Find out, in the first call, what depends on calls."""
        denoiser = self.student.denoiser
        if self._norm is None and self.options.feature_loss != "none":
            self._norm = output_norm(denoiser, call)
        if self._blocks_again is None:
            self._blocks_again = needs_checkpointing(denoiser, call)

    @contextmanager
    def _computing(self) -> Iterator[nn.Module]:
        """The student, to be run or differentiated."""
        with ExitStack() as stack:
            denoiser = stack.enter_context(self.student.quantized())
            if self._blocks_again:
                stack.enter_context(gradient_checkpointing(denoiser, self.student.again))
            stack.enter_context(self._precision.computing())
            yield denoiser
