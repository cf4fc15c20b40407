"""Every switch of a predictor."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from mezzotint._words import check_words
from mezzotint.errors import UsageError
from mezzotint.predictors.target import Target

RankLoss = Literal["spearman", "lambdarank", "both", "none"]
HopWeight = Literal["spearman", "ndcg", "product"]


@dataclass(frozen=True)
class PredictorOptions:
    """Settings of a predictor: its target, losses and training.

    Attributes:
        target: expression of `metric` and `bits`, see `Target`.
        loss: rank loss beside the squared error.
        hop_weight: figure of a fold's validation part by which its scores at a hop count.
        epochs: of training, at most.
        patience: epochs without a better validation loss after which training stops.
        batch: configurations per update.
        folds: parts of the labels, each of which is predicted by a model that never saw it.
        oversample: how many times as often as others the best tenth is drawn.
        reverse: the worst configurations count as the best ones.
        seed: of folds, initial values and order.

    Raises:
        UsageError: a value is out of its domain.
    """

    target: str = "-metric"
    loss: RankLoss = "both"
    hop_weight: HopWeight = "spearman"
    epochs: int = 1000
    patience: int = 100
    batch: int = 128
    folds: int = 5
    oversample: int = 1
    reverse: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"epochs": 1, "patience": 1, "batch": 2, "folds": 2, "oversample": 1, "seed": 0}
        for name, low in least.items():
            value = getattr(self, name)
            if type(value) is not int or value < low:
                raise UsageError(f"{name}: is {value!r}; give a whole number of {low} or more")
        if self.seed >= 2**32:
            raise UsageError(f"seed: is {self.seed}; give less than 2^32")
        check_words(self)
        Target.parse(self.target)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return dataclasses.asdict(self)
