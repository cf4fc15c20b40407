"""Noise that each labelled choice alone adds to the denoiser's output: known without any label."""

from __future__ import annotations

import numpy as np

from mezzotint.errors import ProbeError
from mezzotint.measuring import LayerCandidates, LayerChange, Noise
from mezzotint.plan import Choice, Plan
from mezzotint.recipes.journaled_figures import Measuring
from mezzotint.recipes.labelled import LabelledModel
from mezzotint.recipes.probing import Probing
from mezzotint.recipes.search_space import Floats
from mezzotint.recipes.study import Study
from mezzotint.runtime import Calibration

PROBES = 64


def single_noises(study: Study, labelled: LabelledModel, measuring: Measuring) -> Floats:
    """Noise of each format of each weight, all else floating, float64 [weights, formats].

    Probes predict it; where the model cannot be probed it is measured. Halves of a layer share its
    noise by their weights' errors.

    Args:
        study: its denoiser is looked at, on its calls.
        labelled: its bank has the weights.
        measuring: runs and journals what is found.
    """
    bank, space = labelled.bank, labelled.space
    plans = [bank.plan(dict.fromkeys(space.keys, name)) for name in space.formats]
    found = _by_layer(study, labelled, measuring, plans)
    dataset = labelled.dataset
    layer_of = {node.key: node.layer for node in dataset.graph.weights}
    layers = np.array([layer_of[key] for key in space.keys])
    errors = dataset.weight_errors * np.asarray(space.sizes, dtype=np.float64)[:, None]
    noises = np.zeros(errors.shape)
    for name in dict.fromkeys(layers.tolist()):
        own = layers == name
        total = errors[own].sum(axis=0, keepdims=True)
        alike = np.full(total.shape, 1 / own.sum())
        share = np.divide(errors[own], total, out=np.repeat(alike, own.sum(), 0), where=total > 0)
        noises[own] = share * found[name]
    return noises


def _by_layer(
    study: Study, labelled: LabelledModel, measuring: Measuring, plans: list[Plan]
) -> dict[str, Floats]:
    """Layer → noise under each plan's choice, float64 [formats]."""
    encoding = labelled.bank.encoding
    calibration = Calibration(tensors=study.structures.constants, encoded=labelled.bank)
    choices: dict[str, list[Choice]] = {
        name: [plan[name] for plan in plans] for name in plans[0].choices
    }
    candidates = {
        name: LayerCandidates(tuple(each.weight for each in own), structures=own[0].structures)
        for name, own in choices.items()
    }
    try:
        probing = Probing(study, calibration, encoding, measuring.journal)
        projections = probing.projections(candidates, PROBES)
    except ProbeError:
        changes = [LayerChange(n, each, encoding) for n, own in choices.items() for each in own]
        losses = iter(measuring.recalibrated(calibration).losses(changes, Noise()))
        return {name: np.array([next(losses) for _ in own]) for name, own in choices.items()}
    return {
        name: np.array([max(projections.noise_of_weight(name, each.weight), 0.0) for each in own])
        for name, own in choices.items()
    }
