"""Transfer: effects by type of layer that one model's labels teach, and another one's labels."""

from __future__ import annotations

from typing import Any

from mezzotint.predictors import PredictorOptions, RoleEffects
from mezzotint.recipes.labelled import LabelledModel
from mezzotint.recipes.learning import learned
from mezzotint.recipes.search_space import single_changes

from .label_agreement import agreement

KINDS = ("ridge-choices", "residual")
"""Predictors whose effects are transferred: the best one without a network, and one with."""


def role_effects(labelled: LabelledModel, kind: str, options: PredictorOptions) -> RoleEffects:
    """Mean change of the prediction by type of layer and format, around the best label."""
    dataset = labelled.dataset
    found = learned(kind, dataset, labelled.blocks, options)
    best = found.predictor.evidence.best
    changes = single_changes(labelled.space, found.value(0.0), best)
    return RoleEffects.of(changes, dataset.graph, dataset.formats)


def transferred(
    source: LabelledModel, target: LabelledModel, kind: str, options: PredictorOptions
) -> dict[str, Any]:
    """Agreement of effects that one model taught with labels of another, which they are not of."""
    scores = role_effects(source, kind, options).scores(target.dataset)
    found = agreement(scores, -target.dataset.values, target.dataset.bits)
    return {"configurations": len(scores), **found}


NOTE = (
    "A predictor learns from the labels of the first model; the mean change of its prediction by "
    "type of layer and format is added up over the layers of the second, whose labels it has not "
    "seen. Brackets are 95% bootstrap intervals over configurations."
)
