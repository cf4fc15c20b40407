"""Insights from a folder of labels: scores of layers and blocks, and what would be chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from mezzotint.errors import UsageError
from mezzotint.plan import Budget
from mezzotint.predictors import Ensemble, PredictorOptions, predictor_named
from mezzotint.recipes.labelled import LabelledModel, labelled_model
from mezzotint.recipes.learning import BEST, Learned, learned_once
from mezzotint.recipes.qua2sedimo import Qua2SeDiMo
from mezzotint.recipes.qua2sedimo.block_scores import block_scoring
from mezzotint.recipes.qua2sedimo.byte_window import ByteWindow, byte_window
from mezzotint.recipes.qua2sedimo.decision import Question, programmed
from mezzotint.recipes.qua2sedimo.variants import every_variant, variant_count
from mezzotint.report.findings import findings_of
from mezzotint.report.insights import Insights, box_plots, chosen_bars
from mezzotint.report.scored_layers import Floats, ScoredLayers

SHOWN = 1296
"""Variants of a block whose scores are drawn; of larger blocks an even choice."""


@dataclass(frozen=True)
class Explaining:
    """All that insights are made from.

    Attributes:
        labels: folder of the labels.
        beside: folder of labels of another model, for findings that compare two.
        weight_bits: stored bits of the configuration whose choices are shown; by default the
            median of the labels'.
        predictor: `network`, or another that scores layers and blocks.
        fitted: folder of fitted predictors, as of `Qua2SeDiMo`.
        learning: how the predictor is trained.
    """

    labels: Path
    beside: Path | None = None
    weight_bits: float | None = None
    predictor: str = "network"
    fitted: Path | None = None
    learning: PredictorOptions = field(default_factory=PredictorOptions)


def explained(asked: Explaining) -> Insights:
    """Fit the predictor, score everything, judge the published findings, and draw.

    Raises:
        LabelError, BankError: the labels are missing or damaged.
        PredictorError: there are too few of them.
        UsageError: the predictor scores no layers.
        BudgetError: the labelled formats cannot have the bits, or these are no number of bits.
    """
    _check_scores(asked.predictor)
    # Everything is read and checked before the first training.
    labelled = labelled_model(asked.labels)
    second = None if asked.beside is None else labelled_model(asked.beside)
    bits = float(np.median(labelled.dataset.bits))
    if asked.weight_bits is not None:
        bits = asked.weight_bits
    window = _window(labelled, bits)
    found, ensemble = _learned(asked, labelled, asked.fitted)
    layers, other = scored_layers(labelled, ensemble), None
    if second is not None:
        other = scored_layers(second, _learned(asked, second, None)[1])
    chosen = programmed(Question(labelled, window, Qua2SeDiMo()), found).configuration
    blocks = _block_scores(labelled, ensemble)
    title = f"Chosen at {bits:.4g} stored bits, by type of layer"
    return Insights(
        title=f"Insights from labels of {labelled.labels.context['model']}",
        about=(
            "Scores are standardized norms of a graph network's embeddings, summed over folds: "
            "they order choices, and are in units of no metric."
        ),
        findings=findings_of(layers, other),
        pictures=(*box_plots(layers, blocks), chosen_bars(layers, chosen.tolist(), title)),
        context=_context(asked, labelled, found),
    )


def scored_layers(labelled: LabelledModel, ensemble: Ensemble) -> ScoredLayers:
    """Scores of every format of every weight at hop 0, fold by fold."""
    graph, space = labelled.dataset.graph, labelled.space
    nodes = {node.key: node for node in graph.weights}
    block_of = {
        space.keys[member]: (group.name, str(block.kind))
        for group, block in zip(space.groups, labelled.blocks, strict=True)
        for member in group.members
    }
    fitted = ensemble.fitted
    folds = [
        type(ensemble)(replace(fitted, models=(model,), scales=(scale,))).op_scores()
        for model, scale in zip(fitted.models, fitted.scales, strict=True)
    ]
    return ScoredLayers(
        keys=space.keys,
        roles=tuple(str(nodes[key].role) for key in space.keys),
        blocks=tuple(block_of[key][0] for key in space.keys),
        kinds=tuple(block_of[key][1] for key in space.keys),
        formats=space.formats,
        scores=np.stack(folds),
        bytes=labelled.dataset.bytes,
        weights=labelled.dataset.weights,
    )


def _learned(
    asked: Explaining, labelled: LabelledModel, fitted: Path | None
) -> tuple[Learned, Ensemble]:
    found = learned_once(fitted, asked.predictor, labelled.dataset, labelled.blocks, asked.learning)
    assert isinstance(found.predictor, Ensemble), "checked by its name"
    return found, found.predictor


def _block_scores(labelled: LabelledModel, ensemble: Ensemble) -> Mapping[str, Floats]:
    """Name of every block → scores of its variants."""
    score = block_scoring(labelled, ensemble)
    found = {}
    for group in labelled.space.groups:
        step = -(-variant_count(labelled.space, group) // SHOWN)
        every = np.concatenate(list(every_variant(labelled.space, group)))
        found[group.name] = score(group, every[::step])
    return found


def _check_scores(kind: str) -> None:
    """Refuse predictors that score nothing, before any is fitted."""
    if kind == BEST or not issubclass(predictor_named(kind), Ensemble):
        raise UsageError(f"predictor: {kind!r} scores no layers; use 'network' or 'residual'")


def _window(labelled: LabelledModel, bits: float) -> ByteWindow:
    """The bytes of so many stored bits per weight.

    Raises:
        BudgetError: that is no number of bits, or the labelled formats cannot have it.
    """
    budget = Budget(weight_bits=bits)
    assert budget.weight_bits is not None
    return byte_window(labelled.space, budget.weight_bits * int(labelled.space.sizes.sum()) / 8)


def _context(asked: Explaining, labelled: LabelledModel, found: Learned) -> dict[str, object]:
    header = labelled.labels.context
    return {
        "labels": f"{len(labelled.dataset.values)}, by metric {header['metric']}",
        "formats": ", ".join(labelled.space.formats),
        "rounding": labelled.bank.rounding,
        "predictor": found.kind,
        **{f"{name}, mean over folds": each for name, each in found.figures[found.kind].items()},
        "training": ", ".join(f"{n} {each}" for n, each in asked.learning.to_dict().items()),
    }
