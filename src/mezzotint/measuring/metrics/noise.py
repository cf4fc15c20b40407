"""Noise of the denoiser's output: signal to quantization noise, its decibels aside."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from mezzotint.measuring.metrics.metric import Figures, Metric, Pair, Sight, register_metric


def relative_noise(reference: Tensor, output: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Σ(y - ŷ)² / Σy² per sample of [n, ...], computed and returned in `dtype`: [n]; 0 / 0 is 0."""
    y, y_hat = (tensor.to(dtype).flatten(1) for tensor in (reference, output))
    power = y.square().sum(1).clamp(min=torch.finfo(torch.float32).tiny)
    return (y - y_hat).square().sum(1) / power


def decibels(noise: float) -> float:
    """Signal-to-noise ratio of a relative noise, -10 log10; infinite for none."""
    return math.inf if noise == 0 else -10 * math.log10(noise)


@register_metric
@dataclass(frozen=True)
class Noise(Metric):
    """Mean over calls and samples of Σ(y - ŷ)² / Σy².

    Near enough additive over layers, which is what an allocation needs; decibels are not.
    """

    kind: ClassVar[str] = "noise"
    sees: ClassVar[Sight] = "outputs"

    @override
    def figures(self, pairs: Iterable[Pair]) -> dict[str, float]:
        total, samples = 0.0, 0
        for reference, output in pairs:
            noise = relative_noise(reference, output)
            total += float(noise.double().sum())
            samples += len(noise)
        return {"noise": total / samples}

    @override
    def loss(self, figures: Figures) -> float:
        return figures["noise"]
