"""Rows of benchmarks/qua2sedimo.py, in the order in which they are made."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import mezzotint as mz

MODELS = ("emoji-turbo", "emoji-dit")
TABLES = ("main", "beyond")
BITS = (3.4, 3.65, 3.9, 4.0)
INPUTS_AT, NARROW_INPUTS = 3.65, (8, 6)
IMAGES = 2048
SEEDS = 3

SIX = (
    "kmeans3/channel", "kmeans4/channel", "kmeans3/tensor", "kmeans4/tensor",
    "uint3/channel", "uint4/channel",
)  # fmt: skip

#: Plan of one method alone → its formats, of fewer and of more bits.
MIXED = {
    "UAQ alone": ("uint3/channel", "uint4/channel"),
    "K-Means C alone": ("kmeans3/channel", "kmeans4/channel"),
    "K-Means A alone": ("kmeans3/tensor", "kmeans4/tensor"),
}
FLOAT, BEST_LABEL = "float", "best of the labels"
OP, BLOCK, OURS = "op level", "block level", "ours, six choices"
AUTO_SIX, AUTO, MIXDQ = "auto, six choices", "auto", "mixdq, joint"
AUTO_BARE = "auto, six choices and nothing else"
LEVELS = {OP: "op", BLOCK: "block"}
PUBLISHED = (*MIXED, BEST_LABEL, OP, BLOCK)
CONSTANT = "constant first token"
EVERYTHING = "ours, everything"
APART = (CONSTANT, EVERYTHING)
"""Rows whose labels keep the first token out of quantizers, in a folder of their own: MODEL-bos.

All formats together are chosen by recipe `auto`, which does so as well.
"""

BEYOND = {
    "network, 300 labels": {"predictor": "network"},
    "ours, 100 labels": {},
    "network, 100 labels": {"predictor": "network"},
    "best predictor": {"predictor": "best"},
    "second round": {"second_round": 100},
    "verified end": {"trades": 20},
    CONSTANT: {},
}
"""Plan → options of the recipe beside the usual ones."""

FEWER = 100
"""Labels of the rows that are named for it."""


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        model: embedded one.
        table: where the row stands.
        bits: stored, per weight.
        act_bits: of inputs.
        plan: name of the way to the plan.
        images: on which it is evaluated.
        epochs: of training, at the most.
    """

    model: str
    table: str
    bits: float
    act_bits: int
    plan: str
    images: int = IMAGES
    epochs: int = field(default=1000, compare=False)

    @property
    def setting(self) -> str:
        return f"{self.bits:g} bits, A{self.act_bits}"

    @property
    def place(self) -> tuple[str, str, str, str]:
        """Tells one row from another in kept results."""
        return self.model, self.table, self.setting, self.plan

    @property
    def asked(self) -> dict[str, Any]:
        """All that a finished row must share, JSON values."""
        return {"epochs": self.epochs, "options": self.options}

    @property
    def options(self) -> dict[str, Any]:
        """Options of the row's recipe that differ from its usual ones."""
        levels = {name: {"level": each, "trainings": 4} for name, each in LEVELS.items()}
        if self.plan == EVERYTHING:
            # Trees: the graph networks of every fold take the better part of an hour.
            return {"formats": "all", "predictor": "trees"}
        return BEYOND.get(self.plan) or levels.get(self.plan) or {}

    def recipe(self, labels: str, fitted: str) -> mz.Qua2SeDiMo:
        """The recipe of a row that `qua2sedimo` makes.

        Args:
            labels: folder of the model's labels.
            fitted: folder for fitted networks; rows with the same predictor share one.
        """
        if self.plan == EVERYTHING:
            return mz.Qua2SeDiMo(labels=labels, **self.options)
        shared = fitted if self.plan in LEVELS else f"{fitted}-{OURS}"
        shares = self.plan in (*LEVELS, OURS, "verified end")
        return mz.Qua2SeDiMo(
            labels=labels, fitted=shared if shares else None, epochs=self.epochs, **self.options
        )


def rows(*, images: int | None = None, epochs: int | None = None) -> list[Row]:
    """All rows, model by model, those of the first table first.

    Args:
        images: in place of each row's own.
        epochs: in place of each row's own.
    """
    found = []
    for model in MODELS:
        found.append(Row(model, "main", 16, 16, FLOAT))
        for bits in BITS:
            inputs = (16, *NARROW_INPUTS) if bits == INPUTS_AT else (16,)
            found += [Row(model, "main", bits, a, plan) for a in inputs for plan in _plans()]
        found += [Row(model, "beyond", INPUTS_AT, 16, plan) for plan in BEYOND]
    return [
        dataclasses.replace(
            row,
            images=row.images if images is None else images,
            epochs=row.epochs if epochs is None else epochs,
        )
        for row in found
    ]


def _plans() -> tuple[str, ...]:
    """Ours before those that have its bytes."""
    return (*PUBLISHED, OURS, AUTO_BARE, AUTO_SIX, AUTO, MIXDQ, EVERYTHING)
