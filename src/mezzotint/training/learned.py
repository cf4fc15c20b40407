"""All that updates change, as it is kept and taken up again: parameters and the optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.amp import GradScaler

from mezzotint._journal import differing
from mezzotint.training.optimizer import Optimizer
from mezzotint.training.options import Rates
from mezzotint.training.position import Position
from mezzotint.training.precision import Precision
from mezzotint.training.states import State
from mezzotint.training.student import Student


class Learned:
    """A student's parameters, and the optimizer that changes them.

    Attributes:
        student: the student.
        optimizer: of all its parameters.
    """

    def __init__(self, student: Student, rates: Rates, precision: Precision) -> None:
        """Begin with the student as it is."""
        scaler = GradScaler(precision.device) if precision.scaled else None
        self.student, self.optimizer = student, Optimizer(student, rates, scaler)

    def state(self, position: Position, outputs: Sequence[Tensor]) -> State:
        """The present state, as copies.

        Args:
            position: the place that the training has come to.
            outputs: that the pipeline was given in the trajectory under way.
        """
        parameters = {n: p.detach().clone() for n, p in self.student.parameters().items()}
        optimizer = {n: t.clone() for n, t in self.optimizer.state().items()}
        return State(position, parameters, optimizer, tuple(outputs))

    def misfit(self, state: State) -> str | None:
        """The first thing in a state that no training of this student has written."""
        known = {name: each.shape for name, each in self.student.parameters().items()}
        found = {name: each.shape for name, each in state.parameters.items()}
        name = differing(known, found)
        if name is not None:
            return f"parameters/{name} is {_shown(found, name)}, not {_shown(known, name)}"
        return self.optimizer.misfit(state.optimizer)

    def load(self, state: State) -> None:
        """Take up a state that fits."""
        with torch.no_grad():
            for name, parameter in self.student.parameters().items():
                parameter.copy_(state.parameters[name])
        self.optimizer.load(state.optimizer)


def _shown(shapes: Mapping[str, torch.Size], name: str) -> str:
    return f"of shape {tuple(shapes[name])}" if name in shapes else "absent"
