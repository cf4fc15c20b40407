"""Time that probes will take: passes of a sample, and comparing every candidate with gradients."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from mezzotint.measuring.forecast import finish
from mezzotint.measuring.probed_layer import Memory, ProbedLayer
from mezzotint.measuring.prober import Prober

WATCHED = 1.2
"""Seconds of a run of which inputs are looked at, or rounded, per second of a plain run.

Measured on the shape of Stable Diffusion 1.5: 1.14 to 1.35, by stage."""

_RUNS_BEFORE = 2
"""Plain runs of a sample before the first probe: can it be alone, and what would gradients hold?"""

_REPEATS = 3
"""Comparisons of one layer that are timed: they take milliseconds."""


@dataclass(frozen=True)
class CandidateSeconds:
    """Seconds of what is done with all candidate weights of a denoiser.

    Attributes:
        encoding: of them, once.
        decoding: of them, once, and of the difference from the weights of the base model.
        products: of these differences with one gradient each.
        kept: share of the differences that are kept from one probe to the next.
    """

    encoding: float
    decoding: float
    products: float
    kept: float

    def comparing(self, probes: int) -> float:
        """Seconds of comparing all candidates with the gradients of so many probes in a row."""
        decoded = self.kept + (1 - self.kept) * probes if probes else 0.0
        return decoded * self.decoding + probes * self.products

    def times(self, factor: float) -> CandidateSeconds:
        """Seconds of 1 or more times as many candidates, which find no more room to be kept."""
        return CandidateSeconds(
            factor * self.encoding,
            factor * self.decoding,
            factor * self.products,
            self.kept / factor,
        )


def candidate_seconds(prober: Prober) -> CandidateSeconds:
    """Time the candidates of the middle layer by size; others take as much longer as are larger.

    Raises:
        FormatError, PlanError: a candidate cannot be made of that layer.
    """
    formats = {name: len(asked.weights) for name, asked in prober.candidates.items()}
    names = [name for name, count in formats.items() if count]
    if not names:
        return CandidateSeconds(0.0, 0.0, 0.0, 1.0)
    middle = middle_layer(prober.denoiser, names)
    sizes = {name: formats[name] * _weights(prober.denoiser, name) for name in names}
    total = sum(sizes.values())
    # At first candidates are encoded as well.
    first, decoded = _comparisons(prober.layer(middle, Memory(0)))
    _, product = _comparisons(prober.layer(middle, Memory(None)))
    scale, room = total / sizes[middle], prober.cache_bytes
    kept = 1.0 if room is None else min(1.0, room / (total * torch.float32.itemsize))
    return CandidateSeconds(
        encoding=scale * max(0.0, first - decoded),
        decoding=scale * max(0.0, decoded - product),
        products=scale * product,
        kept=kept,
    )


def middle_layer(denoiser: nn.Module, layers: Iterable[str]) -> str:
    """The one of some layers that has as many weights as the middle one."""
    ordered = sorted(layers, key=lambda name: _weights(denoiser, name))
    return ordered[len(ordered) // 2]


def _weights(denoiser: nn.Module, layer: str) -> int:
    return denoiser.get_submodule(layer).get_parameter("weight").numel()


@torch.inference_mode(False)
def _comparisons(probed: ProbedLayer) -> tuple[float, float]:
    """Seconds of a first comparison with a gradient, and of another one after it."""
    weight = probed.layer.weight
    gradient = torch.ones(weight.shape, dtype=weight.dtype, device=weight.device)
    found = []
    with probed.probing(), torch.no_grad():
        for _ in range(1 + _REPEATS):
            finish(gradient.device)
            started = time.perf_counter()
            probed.compare(gradient)
            finish(gradient.device)
            found.append(time.perf_counter() - started)
    return found[0], statistics.median(found[1:])


@dataclass(frozen=True)
class PassSeconds:
    """Seconds of one sample.

    Attributes:
        forward: of a plain run.
        backward: of a run and the way back to all weights.
    """

    forward: float
    backward: float

    def of_probes(self, probes: int, candidates: CandidateSeconds, inputs: float) -> float:
        """Seconds of so many probes in a row, their preparation included; encoding is not.

        Args:
            probes: how many.
            candidates: weights that each gradient is compared with.
            inputs: roundings of each input that it is compared with.
        """
        if not probes:
            return 0.0
        rounding = inputs * (WATCHED - 1) * self.forward
        passes = _RUNS_BEFORE * self.forward + probes * (self.backward + rounding)
        return passes + candidates.comparing(probes)


def rounded_inputs(prober: Prober) -> float:
    """Roundings of an input in one probe, of candidates and of the base model, on average."""
    base = {} if prober.plan is None else prober.plan.choices
    around = sum(base[name].activation_format is not None for name in base)
    compared = sum(len(asked.inputs) for asked in prober.candidates.values())
    # Those of the base model are rounded on the way there and on the way back.
    return (2 * around + compared) / max(1, len(prober.candidates))
