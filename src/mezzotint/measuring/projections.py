"""Projections of changes onto the directions of probes, and the noise that they predict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Values: TypeAlias = NDArray[np.float64]
"""One number per probe, [n]."""

_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, eq=False)
class Projections:
    """First-order changes of the output of a base model, along one random direction per probe.

    The noise of a change is the mean over samples of Σ(y - ŷ)² / Σy², as `Noise` measures it. With
    random signs v, the mean over probes of ⟨v, ŷ - y⟩² / Σy² is an unbiased estimate of it.

    Attributes:
        energy: Σy² of the sample, y being the floating model's output.
        residual: ⟨v, ŷ - y⟩ of the base model: 0 where that is the floating one.
        weights: layer → weight format → what changing the weight, and the bias with it, adds.
        inputs: layer → name of an input → what rounding the input so adds.
    """

    energy: Values
    residual: Values
    weights: Mapping[str, Mapping[str, Values]]
    inputs: Mapping[str, Mapping[str, Values]]

    def __len__(self) -> int:
        return len(self.energy)

    def noise_of_weight(self, layer: str, weight_format: str) -> float:
        """Noise that one layer's weight adds to the base model's."""
        return self._added(self.weights[layer][weight_format])

    def noise_of_input(self, layer: str, key: str) -> float:
        """Noise that one layer's input adds to the base model's."""
        return self._added(self.inputs[layer][key])

    def _added(self, change: Values) -> float:
        # (r + p)² - r² without cancellation; energies are never 0, as in `relative_noise`.
        power = np.maximum(self.energy, _TINY)
        return float(np.mean(change * (change + 2 * self.residual) / power))
