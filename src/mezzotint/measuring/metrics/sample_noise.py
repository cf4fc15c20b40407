"""Noise of the denoiser's output, sample by sample."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from typing_extensions import override

from mezzotint.measuring.metrics.metric import Figures, Metric, Pair, Sight, register_metric
from mezzotint.measuring.metrics.noise import relative_noise


@register_metric
@dataclass(frozen=True)
class SampleNoise(Metric):
    """Σ(y - ŷ)² / Σy² of every sample of every call, in their order, and the mean: `Noise`'s.

    For differences between two plans on the same samples, whose standard error is known then.
    """

    kind: ClassVar[str] = "sample-noise"
    sees: ClassVar[Sight] = "outputs"
    bounds: ClassVar[Mapping[str, tuple[float, float]]] = {"noise": (0.0, math.inf)}

    @override
    def figures(self, pairs: Iterable[Pair]) -> dict[str, float]:
        found = torch.cat([relative_noise(*pair).double().cpu() for pair in pairs])
        each = {_name(index): float(noise) for index, noise in enumerate(found)}
        return {"noise": float(found.mean())} | each

    @override
    def fault(self, figures: Mapping[str, object]) -> str | None:
        expected = ["noise", *map(_name, range(len(figures) - 1))]
        lacking = [name for name in expected if name not in figures]
        return f"{lacking[0]} is missing" if lacking else super().fault(figures)

    @override
    def limits(self, name: str) -> tuple[float, float] | None:
        return self.bounds["noise"]

    @override
    def loss(self, figures: Figures) -> float:
        return figures["noise"]

    @override
    def standard_error(self, figures: Figures) -> float | None:
        found = sample_noises(figures)
        if len(found) < 2 or not all(map(math.isfinite, found)):
            return None
        return statistics.stdev(found) / math.sqrt(len(found))


def sample_noises(figures: Figures) -> list[float]:
    """The samples' noises in figures of `SampleNoise`, in order."""
    return [figures[_name(index)] for index in range(len(figures) - 1)]


def _name(index: int) -> str:
    return f"sample {index}"
