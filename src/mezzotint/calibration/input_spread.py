"""Peak and standard deviation of every layer's input: what makes 8 bits too few."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from mezzotint.calibration.watching import extremes, watch_inputs
from mezzotint.models import Call
from mezzotint.plan import Choice, Tensors


@dataclass(frozen=True)
class InputSpread:
    """Largest magnitude and standard deviation of a layer's input over all calls.

    Attributes:
        peak: largest |x|.
        deviation: root of the mean of (x - mean)².
    """

    peak: float
    deviation: float

    @property
    def ratio(self) -> float:
        """The peak in standard deviations; infinite for a constant that is not 0."""
        if self.deviation == 0:
            return math.inf if self.peak else 0.0
        return self.peak / self.deviation


def input_spreads(
    denoiser: nn.Module,
    choices: Mapping[str, Choice],
    calls: Sequence[Call],
    tensors: Mapping[str, Tensors] | None = None,
) -> dict[str, InputSpread]:
    """The spread of every layer's input: of all that its quantizers see.

    Args:
        denoiser: the floating model.
        choices: the layers, and which structures they have; formats do not matter.
        calls: recorded calls.
        tensors: layer → what its structures have calibrated.

    Raises:
        CalibrationError, PlanError, FormatError: as `watch_inputs`.
    """
    sums = {name: _Sums() for name in choices}
    watch_inputs(denoiser, choices, sums, calls, tensors, label="Spread of inputs")
    return {name: each.spread() for name, each in sums.items()}


@dataclass
class _Sums:
    """Sums over the inputs of one layer."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    peak: float = 0.0

    def see(self, parts: tuple[Tensor, ...]) -> None:
        """Add the inputs of one run of the layer."""
        for part in parts:
            low, high = extremes(part)
            x = part.double()
            self.count += x.numel()
            self.total += float(x.sum())
            self.squares += float(x.square().sum())
            self.peak = max(self.peak, -low, high)

    def end_call(self) -> None:
        """Sums are over all calls alike."""

    def spread(self) -> InputSpread:
        count = max(self.count, 1)
        variance = self.squares / count - (self.total / count) ** 2
        return InputSpread(self.peak, math.sqrt(max(variance, 0.0)))
