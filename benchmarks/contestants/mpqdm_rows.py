"""Rows of benchmarks/mpqdm.py, in the order in which they are made."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass, field
from typing import Any

import mezzotint as mz

TEACHER = "emoji-teacher"
MODELS = (TEACHER, "emoji-turbo", "emoji-dit")
TABLES = ("main", "settings", "models", "ablations", "beyond")

MINUTES = 10.0
ABLATION_MINUTES = 5.0
IMAGES = 2048
ABLATION_IMAGES = 512

FLOAT, UNIFORM, EFFICIENTDM = "float", "uniform PTQ", "EfficientDM"
WITH_OMQ, WITH_TRD, PUBLISHED, PLUS = "+ OMQ", "+ TRD", "MPQ-DM", "MPQ-DM+"
AUTO, TUNED = "auto", "auto, scales tuned"
OURS, NOT_TRAINED = "ours", "ours, not trained"

#: Parts that are ours, switched off.
AS_PUBLISHED: dict[str, Any] = {"one_bit_levels": False, "bos": False}
BASE: dict[str, Any] = AS_PUBLISHED | {"channels": "none", "smoothing": False}
NO_TRAINING: dict[str, Any] = {"inputs": "tensor", "train_steps": 0}
#: Ours: the published steps with better starts, or one program over all bytes.
BEST: dict[str, Any] = {"rounding": "feedback", "trajectory": "mixed"}

#: Temperatures and weights of the relation loss that are tried against each other.
TEMPERATURES = (1.0, 0.3, 0.1)
WEIGHTS = (1.0, 10.0, 100.0)


@dataclass(frozen=True)
class Row:
    """One line of a table: a model, two widths, and the way to them.

    Attributes:
        model: embedded one.
        table: where the row stands.
        weight_bits: nominal.
        act_bits: of inputs.
        plan: name of the way; unique within model, table and widths.
        options: of the recipe `mpqdm`; None where another makes the plan.
        by_bytes: whether the budget is the stored bytes of MPQ-DM, not a nominal width.
        minutes: of training; 0 where there is none.
        images: on which it is evaluated.
    """

    model: str
    table: str
    weight_bits: int
    act_bits: int
    plan: str
    options: dict[str, Any] | None = field(default=None, compare=False)
    by_bytes: bool = False
    minutes: float = MINUTES
    images: int = IMAGES

    @property
    def setting(self) -> str:
        return f"W{self.weight_bits}A{self.act_bits}"

    @property
    def place(self) -> tuple[str, str, str, str]:
        """Tells one row from another in kept results."""
        return self.model, self.table, self.setting, self.plan

    @property
    def slug(self) -> str:
        """Name of its files."""
        kept = (each if each.isalnum() else "-" for each in "_".join(self.place).lower())
        return "".join(kept)

    def asked(self, steps: int | None) -> dict[str, Any]:
        """All that a finished row must share, JSON values; `steps` are those of `recipe`."""
        # Defaults as well: a row under others is another row.
        options = None if self.options is None else dataclasses.asdict(self.recipe(steps))
        if options is not None:
            del options["smoothing_norms"]  # saves bytes, and changes no output
        return {
            "minutes": self.minutes,
            "steps": steps,
            "options": options,
            "by_bytes": self.by_bytes,
        }

    def recipe(self, steps: int | None = None) -> mz.MPQDM:
        """The recipe's options; with `steps`, of that many updates in place of minutes."""
        assert self.options is not None
        chosen = dict(self.options)
        if "train_steps" not in chosen:
            chosen |= {"train_minutes": self.minutes} if steps is None else {"train_steps": steps}
        return mz.MPQDM(**chosen)


def rows(*, minutes: float | None = None, images: int | None = None) -> list[Row]:
    """All rows, those of the first tables first.

    Args:
        minutes: of training, in place of each row's own.
        images: in place of each row's own.
    """
    found = [*_main(), *_settings(), *_models(), *_ablations(), *_beyond()]
    return [
        dataclasses.replace(
            row,
            minutes=row.minutes if minutes is None or not row.minutes else minutes,
            images=row.images if images is None else images,
        )
        for row in found
    ]


def _five(model: str, table: str, weight_bits: int, act_bits: int) -> list[Row]:
    """The five ways that every model and setting is tried with."""
    place = model, table, weight_bits, act_bits
    return [
        Row(*place, FLOAT, minutes=0),
        Row(*place, UNIFORM, BASE | NO_TRAINING, minutes=0),
        Row(*place, EFFICIENTDM, BASE | {"feature_loss": "none"}),
        Row(*place, PUBLISHED, AS_PUBLISHED),
        Row(*place, OURS, BEST, by_bytes=True),
    ]


def _main() -> list[Row]:
    found = []
    for weight_bits, act_bits in ((2, 4), (3, 6)):
        place = TEACHER, "main", weight_bits, act_bits
        five = _five(*place)
        found += [
            *five[:3],
            Row(*place, WITH_OMQ, AS_PUBLISHED | {"feature_loss": "none"}),
            Row(*place, WITH_TRD, BASE),
            five[3],
            Row(*place, PLUS, AS_PUBLISHED | {"plus": True}),
            Row(*place, AUTO, by_bytes=True, minutes=0),
            five[4],
        ]
    return found


def _settings() -> list[Row]:
    settings = (4, 8), (3, 4), (2, 6)
    return [row for bits in settings for row in _five(TEACHER, "settings", *bits)]


def _models() -> list[Row]:
    return [row for model in MODELS[1:] for row in _five(model, "models", 2, 4)]


def _ablations() -> list[Row]:
    """One switch of MPQ-DM at a time."""
    changes: dict[str, dict[str, Any]] = {
        "kurtosis": {},
        "channels by range": {"channels": "range"},
        "random channels": {"channels": "random"},
        "head-tail channels": {"channels": "head-tail"},
        "released search": {"search": "released"},
        "no smoothing": {"smoothing": False},
        "one scale of inputs for all steps": {"inputs": "tensor"},
        "constant first token": {"bos": True},
        "two levels at 1 bit": {"one_bit_levels": True},
        "L2 for TRD": {"feature_loss": "l2"},
        "TRD, gradient of one step": {"trd_graph": "stop"},
    }
    changes |= {
        f"τ {temperature:g}, λ {weight:g}": {"temperature": temperature, "relation_weight": weight}
        for temperature, weight in itertools.product(TEMPERATURES, WEIGHTS)
    }
    changes |= {
        "SVD start": {"lora_init": "svd"},
        "train weights": {"train": "weights"},
        "train scales": {"train": "scales"},
        "quantized shortcuts": {"shortcuts": "quantized"},
    }
    return [
        Row(TEACHER, "ablations", 2, 4, name, AS_PUBLISHED | change, minutes=ABLATION_MINUTES,
            images=ABLATION_IMAGES)
        for name, change in changes.items()
    ]  # fmt: skip


def _beyond() -> list[Row]:
    """Rows of ours: each part alone, and tuned scales of the default recipe's plan."""
    place = TEACHER, "beyond", 2, 4
    alone: dict[str, dict[str, Any]] = {
        "start by error feedback": {"rounding": "feedback"},
        "own trajectory": {"trajectory": "mixed"},
        "inputs per token": {"inputs": "token"},
        "bits of inputs by step": {"step_bits": True},
        "ours, nominal widths": BEST,
    }
    return [
        *(Row(*place, name, change) for name, change in alone.items()),
        Row(*place, NOT_TRAINED, BEST | {"train_steps": 0}, by_bytes=True, minutes=0),
        Row(*place, "ours, no mixtures", BEST | {"channels": "none"}, by_bytes=True),
        Row(*place, "ours, inputs per token", BEST | {"inputs": "token"}, by_bytes=True),
        Row(*place, TUNED, by_bytes=True),
    ]
