"""Every switch of Qua²SeDiMo."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

from mezzotint._words import check_words
from mezzotint.errors import FormatError, UsageError
from mezzotint.plan import SimulatedAttention
from mezzotint.predictors import PredictorOptions
from mezzotint.recipes.learning import BEST
from mezzotint.recipes.qua2sedimo.steering import TRAININGS

Level = Literal["op", "block", "program"]

PUBLISHED: tuple[Level, ...] = ("op", "block")

_AT_LEVELS: Mapping[str, tuple[tuple[Level, ...], str]] = {
    "caution": (("program",), "scores have no spread"),
    "rounds": (("program",), "scores are taken once"),
    "trainings": (PUBLISHED, "the program keeps to the bits asked for by itself"),
}
"""Options that change nothing at other levels than these, and why."""


@dataclass(frozen=True)
class Qua2SeDiMo:
    """Learn from labelled configurations what quantization costs, and choose by what was learned.

    Attributes:
        labels: folder that `mezzotint sample` made of the same model.
        level: what decides: the score of each layer's format (`op`, published), the score of all
            variants of each block (`block`, published), or the change of the prediction that a
            block makes while all others stay, in one program under the bytes (`program`).
        predictor: learns from the labels: a registered one, or the `best` of them on these labels.
            Published levels need one that scores layers and blocks: `network`, which is the usual
            one there, or `residual`, which is that of level `program`. Among all formats it is
            the `best`.
        formats: formats to choose from: those that were `labelled`, or `all` that recipe `auto`
            has, with error feedback; what the labels tell of each layer then weighs its losses.
        fitted: folder of fitted predictors, one for each target: what is there is loaded, and what
            is not is fitted and kept there. What a second round teaches is not.
        target: what is learned, an expression of `metric` and `bits`. At the published levels the
            bits asked for are met by a weight of `bits` that is found beside it.
        trainings: weights of `bits` that are tried for that at the most, each with a training.
        caution: at level `program`, choose by the mean prediction less so many times the spread
            over folds.
        rounds: programs that are solved, each around the answer of the one before, at the most.
        second_round: labels to measure near the configuration that was found, three choices
            changed at equal bytes; all is then learned and decided again.
        trades: exchanges of two layers at equal bytes that are tried at the end; those by which the
            metric on held-out seeds improves by more than its standard error are kept if all of
            them together improve it on further seeds; 20 is a good number.
        simulated_attention: bits to which queries, keys, values and softmax's probabilities are
            rounded, simulated in floating point: `8`, `6`, or some of `q8,k8,v8,softmax8`.
        loss: rank loss beside the squared error: `spearman`, `lambdarank`, `both` or `none`.
        hop_weight: figure by which a fold's scores at a hop count.
        epochs: of training, at most.
        patience: epochs without a better validation loss after which training stops.
        batch: configurations per update.
        folds: parts of the labels, each predicted by a model that never saw it.
        oversample: how many times as often as others the best tenth of the labels is drawn.
        reverse: find the worst configuration of the budget instead.
        seed: of training and drawing.
    """

    labels: str | None = None
    level: Level = "program"
    predictor: str | None = None
    formats: Literal["labelled", "all"] = "labelled"
    fitted: str | None = None
    target: str = PredictorOptions.target
    trainings: int = TRAININGS
    caution: float = 0.0
    rounds: int = 5
    second_round: int = 0
    trades: int = 0
    simulated_attention: str | None = None
    loss: Literal["spearman", "lambdarank", "both", "none"] = PredictorOptions.loss
    hop_weight: Literal["spearman", "ndcg", "product"] = PredictorOptions.hop_weight
    epochs: int = PredictorOptions.epochs
    patience: int = PredictorOptions.patience
    batch: int = PredictorOptions.batch
    folds: int = PredictorOptions.folds
    oversample: int = PredictorOptions.oversample
    reverse: bool = PredictorOptions.reverse
    seed: int = PredictorOptions.seed

    def __post_init__(self) -> None:
        check_words(self)
        for name, least in (("trainings", 1), ("rounds", 1), ("second_round", 0), ("trades", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"{name}: is {getattr(self, name)}; give {least} or more")
        if not 0 <= self.caution < math.inf:
            raise UsageError(f"caution: is {self.caution}; give a number of spreads, 0 or more")
        for name, (levels, why) in _AT_LEVELS.items():
            if self.level not in levels and getattr(self, name) != type(self).usual(name):
                raise UsageError(
                    f"{name}: changes nothing at level {self.level!r}, where {why}; leave it out, "
                    f"or use level {' or '.join(map(repr, levels))}"
                )
        _ = self.attention, self.learning  # check everything else that they take

    @classmethod
    def usual(cls, name: str) -> object:
        """The value of an option that is not given."""
        return next(each.default for each in fields(cls) if each.name == name)

    @property
    def learner(self) -> str:
        """Name of the predictor: the one asked for, or the usual one."""
        if self.predictor is not None:
            return self.predictor
        if self.formats == "all":
            return BEST
        return "network" if self.level in PUBLISHED else "residual"

    @property
    def attention(self) -> SimulatedAttention | None:
        """Rounding of the operands of attention; None where there is none.

        Raises:
            UsageError: the text stands for none.
        """
        if self.simulated_attention is None:
            return None
        try:
            return SimulatedAttention.parse(self.simulated_attention)
        except FormatError as cause:
            raise UsageError(str(cause)) from cause

    @property
    def learning(self) -> PredictorOptions:
        """The options of the predictor.

        Raises:
            UsageError: a value is out of its domain.
        """
        shared = {each.name for each in fields(PredictorOptions)}
        return PredictorOptions(
            **{each.name: getattr(self, each.name) for each in fields(self) if each.name in shared}
        )
