"""Peak and standard deviation of every layer's input: what makes 8 bits too few."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mezzotint.errors import CalibrationError, PlanError
from mezzotint.models import Call
from mezzotint.plan import Choice, Structure, Tensors
from mezzotint.runtime import own_tensors, part_inputs, shape_of


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


@torch.no_grad()
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
        CalibrationError: a layer sees NaN or infinity, or has no tokens to leave out; the layer is
            named.
    """
    found = {}
    with ExitStack() as hooks:
        for name, choice in choices.items():
            layer = denoiser.get_submodule(name)
            known = (tensors or {}).get(name, {})
            weight = layer.get_parameter("weight").detach()
            own = own_tensors(choice.structures, weight, shape_of(layer), known)
            found[name] = _Observer(name, choice.structures, own)
            hooks.enter_context(layer.register_forward_pre_hook(found[name].observe))
        for call in calls:
            call.run(denoiser)
    return {name: observer.spread() for name, observer in found.items()}


@dataclass
class _Observer:
    """Sums over the inputs of one layer."""

    name: str
    structures: tuple[Structure, ...]
    tensors: Tensors
    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    peak: float = 0.0

    def observe(self, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        """A forward pre-hook."""
        try:
            parts = part_inputs(inputs[0], self.structures, shape_of(layer), self.tensors)
        except PlanError as cause:
            raise CalibrationError(f"layer {self.name}: {cause}") from cause
        for part in parts:
            if part.numel():
                self._add(part.detach().double())

    def _add(self, x: Tensor) -> None:
        peak, total, squares = float(x.abs().max()), float(x.sum()), float(x.square().sum())
        if not math.isfinite(squares):
            raise CalibrationError(f"layer {self.name}: its input holds NaN or infinite values")
        self.count += x.numel()
        self.total += total
        self.squares += squares
        self.peak = max(self.peak, peak)

    def spread(self) -> InputSpread:
        count = max(self.count, 1)
        variance = self.squares / count - (self.total / count) ** 2
        return InputSpread(self.peak, math.sqrt(max(variance, 0.0)))
