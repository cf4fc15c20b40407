"""Factors by which the noise of each layer counts, by what a predictor learned from labels."""

from __future__ import annotations

import numpy as np

from mezzotint.errors import PredictorError
from mezzotint.recipes.labelled import LabelledModel
from mezzotint.recipes.learning import Learned
from mezzotint.recipes.search_space import Floats, Rows, single_changes

LARGEST = 4.0
"""Factor by which a layer may count more, or less, than its noise says."""

AROUND = 8
"""Labelled configurations around which changes are predicted: the best within the bytes."""


def emphasis(labelled: LabelledModel, learned: Learned, most: int) -> dict[str, float]:
    """Layer → factor of its noise: what a unit of it costs, in units of what it costs on average.

    Along the formats of a layer, the predicted fall of the target is regressed on the noise that
    each format alone adds; the slope, over that of all layers together, is the factor. So what was
    learned of a few formats carries over to all that noise is known of.

    Args:
        labelled: with noises.
        learned: the predictor; sums weigh no layer otherwise than noise does.
        most: bytes of the plan that is looked for.

    Raises:
        PredictorError: there are no noises.
    """
    noises = labelled.dataset.noises
    if noises is None:
        raise PredictorError("emphasis: the labels come without noises; measure them")
    layer_of = {node.key: node.layer for node in labelled.dataset.graph.weights}
    layers = np.array([layer_of[key] for key in labelled.space.keys])
    names = list(dict.fromkeys(layers.tolist()))
    if learned.weighs_alike:
        return dict.fromkeys(names, 1.0)
    costs = -_changes(labelled, learned, most)
    costs, noise = (each - each.mean(axis=1, keepdims=True) for each in (costs, noises))
    along, power = (noise * costs).sum(axis=1), np.square(noise).sum(axis=1)
    slope = along.sum() / max(power.sum(), np.finfo(np.float64).tiny)
    if slope <= 0:  # the predictor contradicts noise altogether: there is nothing to scale
        return dict.fromkeys(names, 1.0)
    found = {}
    for name in names:
        own = layers == name
        total = power[own].sum()
        factor = along[own].sum() / total / slope if total > 0 else 1.0
        found[name] = float(np.clip(factor, 1 / LARGEST, LARGEST))
    return found


def _changes(labelled: LabelledModel, learned: Learned, most: int) -> Floats:
    """Mean change of the prediction when one weight takes one format, [weights, formats]."""
    value, space = learned.value(0.0), labelled.space
    incumbents = _incumbents(labelled, most)
    changes = [single_changes(space, value, each) for each in incumbents]
    return np.asarray(np.mean(changes, axis=0))


def _incumbents(labelled: LabelledModel, most: int) -> Rows:
    """Labelled configurations of small metrics, of those within the bytes where there are any."""
    dataset = labelled.dataset
    fits = labelled.space.stored(dataset.configurations) <= most
    places = np.flatnonzero(fits) if fits.any() else np.arange(len(dataset.values))
    order = places[np.argsort(dataset.values[places], kind="stable")]
    return np.asarray(dataset.configurations[order[:AROUND]])
