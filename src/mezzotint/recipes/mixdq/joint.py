"""One unit for two metrics: what a loss in either group does to the final image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import nnls

from mezzotint.models import LayerGroup
from mezzotint.recipes.mixdq.programs import Sensitivity, Widths

_LEAST = 0.01
"""Errors below this share of the greatest are noise; so is a group's blame."""


def random_widths(
    layers: Mapping[str, Sensitivity], count: int, seed: int = 0
) -> tuple[Widths, ...]:
    """Plans that spread losses over both groups in changing proportions.

    Each plan draws, per group, how likely each candidate width is, so that the plans differ in
    which group carries the loss; otherwise the two could not be told apart.
    """
    generator = np.random.default_rng(seed)
    plans = []
    for _ in range(count):
        inclination = {group: generator.random() for group in LayerGroup}
        plan = {}
        for name, layer in layers.items():
            widths = sorted(layer.losses)
            place = generator.binomial(len(widths) - 1, inclination[layer.group])
            plan[name] = widths[place]
        plans.append(plan)
    return tuple(plans)


def predicted(layers: Mapping[str, Sensitivity], widths: Widths) -> Mapping[LayerGroup, float]:
    """Σ losses of each group under `widths`."""
    sums = dict.fromkeys(LayerGroup, 0.0)
    for name, width in widths.items():
        sums[layers[name].group] += layers[name].losses[width]
    return sums


def fit_weights(
    layers: Mapping[str, Sensitivity], plans: Sequence[Widths], errors: Sequence[float]
) -> Mapping[LayerGroup, float]:
    """Weights w, above 0, with image error ≈ Σ_groups w · Σ losses, in the relative sense.

    Non-negative least squares on the error relative to itself, so that plans of small error, which
    are the ones an allocation looks for, count as much as ruined images. Infinite errors are left
    out; a group without losses gets 1, and so do both where no error is above 0.
    """
    measured = np.asarray(errors, dtype=np.float64)
    finite = np.isfinite(measured)
    found = np.maximum(measured[finite], 0.0)
    sums = np.array([list(predicted(layers, plan).values()) for plan in plans])[finite]
    if not found.size or not found.max():
        return dict.fromkeys(LayerGroup, 1.0)  # nothing to be told apart
    scale = np.maximum(found, found.max() * _LEAST)
    relative = sums / scale[:, None]
    weights, _ = nnls(relative, found / scale)
    # A group that seems harmless on few plans keeps a little of the blame: with none at all, the
    # program would give its layers the fewest bits.
    typical = relative.mean(axis=0)
    least = np.divide(_LEAST, typical, out=np.ones_like(typical), where=typical > 0)
    return dict(zip(LayerGroup, map(float, np.maximum(weights, least)), strict=True))
