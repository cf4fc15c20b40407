"""Samples of recorded calls: single rows of a batch, where they can be computed alone."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from mezzotint.measuring.in_process import recorded_output
from mezzotint.measuring.metrics import relative_noise
from mezzotint.models import Call, rows_of

_ROUNDING = 1e-5
"""Greatest relative noise of a row that was run alone: kernels round by the size of the batch."""


def sample_count(call: Call) -> int:
    """Samples in a recorded call: guidance halves are two.

    Raises:
        CalibrationError: the call was never run.
    """
    return len(recorded_output(call))


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples of a denoiser's recorded calls.

    Attributes:
        denoiser: the floating one.
    """

    denoiser: nn.Module
    _apart: dict[Hashable, bool] = field(default_factory=dict, init=False)

    def sample(self, call: Call, row: int | None) -> Call:
        """One row of a call; the whole call where `row` is None or rows depend on each other.

        That is tried once for calls of the same shape: one row, run alone, has to give what was
        recorded of it.
        """
        if row is None or not self.separable(call):
            return call
        return rows_of(call, (row,))

    def separable(self, call: Call) -> bool:
        """True where each row of the call can be computed alone."""
        shape = _shape(call)
        if shape not in self._apart:
            self._apart[shape] = sample_count(call) == 1 or self._reproduces(call)
        return self._apart[shape]

    @torch.no_grad()
    def _reproduces(self, call: Call) -> bool:
        alone = rows_of(call, (sample_count(call) - 1,))
        expected = recorded_output(alone)
        try:
            output = alone.run(self.denoiser)
        except Exception:  # whatever a module's own code raises where a batch is cut
            return False
        if output.shape != expected.shape:
            return False
        tolerance = max(_ROUNDING, (16 * torch.finfo(expected.dtype).eps) ** 2)
        return bool(relative_noise(expected, output).max() <= tolerance)


def _shape(call: Call) -> Hashable:
    """Equal for calls whose arguments have the same structure, shapes and types."""
    leaves, structure = tree_flatten((tuple(call.args), dict(call.kwargs), call.output))
    shapes = (
        (tuple(leaf.shape), leaf.dtype) if isinstance(leaf, Tensor) else type(leaf)
        for leaf in leaves
    )
    return str(structure), tuple(shapes)
