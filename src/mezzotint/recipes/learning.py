"""Learning from labels, for recipes: one predictor, or the best of all on these labels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mezzotint._files import check_no_file
from mezzotint.errors import PredictorError, UsageError
from mezzotint.models import Block
from mezzotint.predictors import (
    Dataset,
    Ensemble,
    Predictor,
    PredictorOptions,
    SumPredictor,
    Target,
    averages,
    judged,
    predictor_named,
    predictors,
)
from mezzotint.recipes.search_space import Floats, Rows, Value

BEST = "best"
"""Stands for whichever predictor orders these labels best."""


@dataclass(frozen=True, eq=False)
class Learned:
    """A predictor, and how it did on labels that it had not seen.

    Attributes:
        predictor: fitted.
        figures: name of each predictor that was compared → its mean figures over folds.
    """

    predictor: Predictor[Any]
    figures: Mapping[str, Mapping[str, float]]

    @property
    def kind(self) -> str:
        """Name of the predictor."""
        return self.predictor.kind

    @property
    def weighs_alike(self) -> bool:
        """True where one number per choice is added up: of layers that knows no more than noise."""
        return isinstance(self.predictor, SumPredictor)

    def value(self, caution: float) -> Value:
        """Mean prediction less so many spreads, as a function of configurations [n, weights]."""

        def value(configurations: Rows) -> Floats:
            found = self.predictor.predict(configurations)
            return np.asarray(found.mean - caution * found.spread)

        return value

    def context(self) -> dict[str, object]:
        """Part of a plan's context, JSON values."""
        return {"predictor": self.kind, "predictors": {n: dict(f) for n, f in self.figures.items()}}


def learned(
    kind: str, dataset: Dataset, blocks: tuple[Block, ...], options: PredictorOptions
) -> Learned:
    """Fit a predictor, or all of them for the best.

    The best is the one of the highest rank correlation with the labels given their stored bits:
    under a budget all plans have the same bits, and it is the rest that decides.

    Args:
        kind: a registered predictor, or `best`.
        dataset: the labels.
        blocks: of its graph.
        options: of the predictor.

    Raises:
        PredictorError: there are too few labels, or the dataset lacks what the predictor reads.
        UsageError: there is no such predictor.
    """
    if kind != BEST:
        found = predictor_named(kind).fit(dataset, blocks, options)
        return Learned(found, {kind: _figures(found)})
    fitted: list[Predictor[Any]] = []
    refused: list[PredictorError] = []
    for each in predictors():
        try:
            fitted.append(each.fit(dataset, blocks, options))
        except PredictorError as cause:  # without an extra or single-layer noises, others compete
            refused.append(cause)
    if not fitted:
        raise refused[0]
    figures = {each.kind: _figures(each) for each in fitted}
    # NaN is below any number: a predictor that says the same of all labels orders nothing.
    best = max(fitted, key=lambda each: np.nan_to_num(figures[each.kind]["partial"], nan=-2.0))
    return Learned(best, figures)


def learned_once(
    fitted: str | Path | None,
    kind: str,
    dataset: Dataset,
    blocks: tuple[Block, ...],
    options: PredictorOptions,
) -> Learned:
    """The predictor from a folder of fitted ones, where it is there; else it is fitted, and kept.

    Args:
        fitted: folder of predictors, one for each target; None to fit and keep nothing.
        kind: as of `learned`; the rest, too.
        dataset: the labels.
        blocks: of its graph.
        options: of the predictor.

    Raises:
        PredictorError: what is there is damaged, or of other labels or options; as `learned`.
        UsageError: the predictor is of a kind that is not kept.
    """
    if fitted is None:
        return learned(kind, dataset, blocks, options)
    kept = _kept_kind(kind)  # before anything is fitted that takes long
    for each in (Path(fitted), *Path(fitted).parents):
        check_no_file(each)
    name = hashlib.sha256(options.target.encode()).hexdigest()[:12]  # fit for every file system
    folder = Path(fitted) / f"target-{name}"
    if folder.is_dir():
        return _loaded(kept, folder, dataset, options)
    predictor = kept.fit(dataset, blocks, options)
    predictor.save(folder)
    return Learned(predictor, {kind: _figures(predictor)})


def _loaded(
    kept: type[Ensemble], folder: Path, dataset: Dataset, options: PredictorOptions
) -> Learned:
    """A predictor that was fitted before, to the same labels and with the same options.

    Raises:
        PredictorError: the folder is damaged, or of other labels or options.
    """
    found = kept.load(folder)
    if found.fitted.options != options:
        raise PredictorError(
            f"{folder}: was fitted with other options; name another folder, or the same options"
        )
    evidence, targets = found.evidence, Target.parse(options.target)
    same = found.space == dataset.space and np.array_equal(
        evidence.configurations, dataset.configurations
    )
    if not same or not np.array_equal(
        evidence.targets, targets.of(dataset, reverse=options.reverse)
    ):
        raise PredictorError(f"{folder}: was fitted to other labels; name another folder")
    return Learned(found, {found.kind: _figures(found)})


def _kept_kind(kind: str) -> type[Ensemble]:
    """The predictor of that name, of a kind that is worth a file.

    Raises:
        UsageError: it is none, or not of that kind.
    """
    if kind == BEST:
        raise UsageError(f"fitted: keeps one predictor, and {BEST!r} compares all; leave it out")
    found = predictor_named(kind)
    if not issubclass(found, Ensemble):
        raise UsageError(f"fitted: predictor {kind!r} is fitted in no time; leave it out")
    return found


def _figures(predictor: Predictor[Any]) -> dict[str, float]:
    found = averages(judged(predictor.evidence))
    return {name: round(interval.value, 4) for name, interval in found.items()}
