"""Screening: candidates that cannot matter are told from a few backward passes, not measured.

A plan within the budget has a certain noise at the least, whatever is chosen. Candidates that
would add up to a hundredth of it if every layer took such a one are not worth a measurement. All
others are measured by the published metrics.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

from mezzotint.allocation import allocate
from mezzotint.errors import CalibrationWarning, InfeasibleBudgetError, ProbeError
from mezzotint.measuring import (
    InputCandidate,
    InputChange,
    LayerCandidates,
    LayerChange,
)
from mezzotint.recipes.mixdq.method import Method
from mezzotint.recipes.probing import Probing

PROBES = 64
NEGLIGIBLE = 0.01
"""Share of the least noise that all layers' screened candidates may add up to."""

Noises = Mapping[str, Mapping[int, float]]
"""Layer → width → noise of the output, by probes."""


def negligible(
    method: Method,
    changes: Mapping[str, Mapping[int, LayerChange | InputChange]],
    average: float,
) -> dict[str, dict[int, float]]:
    """The candidates that cannot matter, with the noise that probes tell of them.

    None, and a warning, where the model cannot be probed: all candidates are measured then.

    Args:
        method: calibrated.
        changes: layer → width → change, all of weights or all of inputs.
        average: bits that the budget allows at the most.
    """
    try:
        noises = _noises(method, changes)
    except ProbeError as cause:
        warnings.warn(f"screen: nothing is left out: {cause}", CalibrationWarning, stacklevel=2)
        return {name: {} for name in changes}
    bound = NEGLIGIBLE * _least(method, noises, average) / len(noises)
    return {
        name: {width: noise for width, noise in each.items() if noise < bound}
        for name, each in noises.items()
    }


def _least(method: Method, noises: Noises, average: float) -> float:
    """Noise of the best plan of at most the average, scales and groups aside."""
    scores = {name: {w: -noise for w, noise in each.items()} for name, each in noises.items()}
    sizes = {layer.name: layer.parameters for layer in method.study.layers}
    try:
        best = allocate(scores, {name: sizes[name] for name in noises}, average_bits=average)
    except InfeasibleBudgetError:
        best = {name: min(each) for name, each in noises.items()}
    return sum(noises[name][width] for name, width in best.items())


def _noises(
    method: Method, changes: Mapping[str, Mapping[int, LayerChange | InputChange]]
) -> Noises:
    candidates = {name: _candidates(method, each) for name, each in changes.items()}
    study, journal = method.study, method.measuring.journal
    probing = Probing(study, method.calibration, method.encoding, journal)
    found = probing.projections(candidates, PROBES)
    return {
        name: {
            width: found.noise_of_input(name, change.choice.activation)
            if isinstance(change, InputChange)
            else found.noise_of_weight(name, change.choice.weight)
            for width, change in each.items()
        }
        for name, each in changes.items()
    }


def _candidates(
    method: Method, changes: Mapping[int, LayerChange | InputChange]
) -> LayerCandidates:
    weights: dict[str, None] = {}
    inputs: dict[str, InputCandidate] = {}
    for change in changes.values():
        choice = change.choice
        if isinstance(change, LayerChange):
            weights[choice.weight] = None
        else:
            ranges = method.calibration.input_ranges.get(change.target, ())
            inputs[choice.activation] = InputCandidate(choice.activation_format, ranges)
    structures = next(iter(changes.values())).choice.structures
    return LayerCandidates(tuple(weights), inputs, structures)
