"""Predictors: from labelled configurations to the target of any other, and their registry."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, NamedTuple, Self, TypeVar

import numpy as np
import numpy.typing as npt

from mezzotint._plugins import Registry
from mezzotint.errors import PredictorError
from mezzotint.models import Block
from mezzotint.predictors.dataset import Dataset, FloatArray, IntArray, Space
from mezzotint.predictors.folds import Fold, folds_of
from mezzotint.predictors.options import PredictorOptions
from mezzotint.predictors.target import Scale, Target


class Prediction(NamedTuple):
    """Predicted targets, in the target's own units; the higher, the better.

    Attributes:
        mean: over the models of all folds, float64 [m].
        spread: standard deviation over them, float64 [m].
    """

    mean: FloatArray
    spread: FloatArray


@dataclass(frozen=True, eq=False)
class FoldTask:
    """All that the model of one fold is made from.

    Attributes:
        dataset: labels of all folds.
        blocks: of its graph.
        options: see there.
        fold: rows to learn from; its test rows are to be left alone.
        targets: float64 [n], of every label, on the fold's scale.
        number: of the fold, from 0.
    """

    dataset: Dataset
    blocks: tuple[Block, ...]
    options: PredictorOptions
    fold: Fold
    targets: FloatArray
    number: int


class FoldModel(ABC):
    """Model that has learned from one fold."""

    @abstractmethod
    def predict(self, configurations: IntArray) -> FloatArray:
        """Targets on the fold's scale: float64 [m] for int64 [m, weight nodes]."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """Targets of labels, and predictions of each by the model that never saw it.

    Attributes:
        configurations: int64 [n, weight nodes], that were labelled.
        targets: float64 [n], of the labels, in the target's own units.
        predicted: float64 [n], each by the model in whose test part it is.
        bits: float64 [n], stored bits per weight.
        fold: int64 [n], number of the fold that tests it.
    """

    configurations: IntArray
    targets: FloatArray
    predicted: FloatArray
    bits: FloatArray
    fold: IntArray

    @property
    def best(self) -> IntArray:
        """The labelled configuration of the highest target, int64 [weight nodes]."""
        found: IntArray = self.configurations[self.targets.argmax()]
        return found


ModelT_co = TypeVar("ModelT_co", bound=FoldModel, covariant=True)


@dataclass(frozen=True, eq=False)
class Fitted(Generic[ModelT_co]):
    """All that a predictor has learned.

    Attributes:
        models: of the folds.
        scales: on which each of them predicts.
        evidence: of labels that the models had not seen.
        space: of configurations that can be predicted.
        options: by which it was fitted.
    """

    models: tuple[ModelT_co, ...]
    scales: tuple[Scale, ...]
    evidence: Evidence
    space: Space
    options: PredictorOptions


class Predictor(ABC, Generic[ModelT_co]):
    """One model per fold of the labels, whose mean predicts.

    Attributes:
        kind: name in the registry.
        reads_noises: whether it reads what each choice alone adds to the output.
        trains: whether it is trained in epochs, by the options that are about those.
        fitted: what it has learned.
    """

    kind: ClassVar[str]
    reads_noises: ClassVar[bool] = False
    trains: ClassVar[bool] = True

    def __init__(self, fitted: Fitted[ModelT_co]) -> None:
        self.fitted = fitted

    @property
    def evidence(self) -> Evidence:
        """Targets of labels, and predictions of each by the model that never saw it."""
        return self.fitted.evidence

    @property
    def space(self) -> Space:
        """Configurations that can be predicted."""
        return self.fitted.space

    @classmethod
    @abstractmethod
    def fit_fold(cls, task: FoldTask) -> ModelT_co:
        """Learn from one fold's rows."""

    @classmethod
    def fit(
        cls,
        dataset: Dataset,
        blocks: Sequence[Block] = (),
        options: PredictorOptions | None = None,
    ) -> Self:
        """Learn from labels, fold by fold.

        Args:
            dataset: with the labels.
            blocks: of its graph; of use to predictors that score them.
            options: see there.

        Raises:
            PredictorError: there are too few labels, all are the same, or the dataset lacks what
                this predictor reads.
            UsageError: the target is no expression.
        """
        options = options or PredictorOptions()
        targets = Target.parse(options.target).of(dataset, reverse=options.reverse)
        folds = folds_of(dataset.configurations, options.folds, options.seed)
        models, scales = [], []
        predicted, number_of = np.empty(len(targets)), np.empty(len(targets), np.int64)
        for number, fold in enumerate(folds):
            scale = Scale.fit(targets[fold.known])
            task = FoldTask(dataset, tuple(blocks), options, fold, scale.scaled(targets), number)
            model = cls.fit_fold(task)
            tested = model.predict(dataset.configurations[fold.test])
            predicted[fold.test], number_of[fold.test] = scale.restored(tested), number
            models.append(model)
            scales.append(scale)
        evidence = Evidence(dataset.configurations, targets, predicted, dataset.bits, number_of)
        return cls(Fitted(tuple(models), tuple(scales), evidence, dataset.space, options))

    def predict(self, configurations: npt.ArrayLike) -> Prediction:
        """Predict the target of configurations, labelled or not.

        Args:
            configurations: integers [m, weight nodes], indices into the formats.

        Raises:
            PredictorError: they are no configurations of the space.
        """
        given = self.space.checked(configurations)
        found = np.stack(
            [
                scale.restored(model.predict(given))
                for model, scale in zip(self.fitted.models, self.fitted.scales, strict=True)
            ]
        )
        return Prediction(found.mean(0), found.std(0))


_PREDICTORS: Registry[type[Predictor[Any]]] = Registry("predictors", "predictor")

P = TypeVar("P", bound=type[Predictor[Any]])


def register_predictor(kind: str) -> Callable[[P], P]:
    """Class decorator: make a predictor known under a name.

    Raises:
        UsageError: the name is taken.
    """

    def register(predictor: P) -> P:
        predictor.kind = kind
        _PREDICTORS.add(kind, predictor, predictor)
        return predictor

    return register


def predictor_named(kind: str) -> type[Predictor[Any]]:
    """The predictor of that name.

    Raises:
        UsageError: there is none; the message lists them.
    """
    return _PREDICTORS.named(kind)


def predictors() -> tuple[type[Predictor[Any]], ...]:
    """All predictors, those of other packages too."""
    return _PREDICTORS.all()


def noises_of(dataset: Dataset, kind: str) -> FloatArray:
    """Single-layer noises, float64 [weight nodes, formats].

    Raises:
        PredictorError: the dataset has none; names the predictor that needs them.
    """
    if dataset.noises is None:
        raise PredictorError(
            f"predictor {kind!r}: reads the noise of every single choice, which this dataset has "
            "not; measure it, or take another predictor"
        )
    return dataset.noises
