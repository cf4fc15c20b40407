"""Differences between two plans."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mezzotint.plan.choice import Choice
from mezzotint.plan.encoding import Encoding
from mezzotint.plan.plan import Plan


@dataclass(frozen=True)
class Planned:
    """All that a plan says of one layer.

    Attributes:
        choice: formats and structure.
        encoding: how its weight is rounded; None where it stays floating.
    """

    choice: Choice
    encoding: Encoding | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON values; the encoding stands as at the top of a plan."""
        encoding = {} if self.encoding is None else {"encoding": self.encoding.to_dict()}
        return {**self.choice.to_dict(), **encoding}


@dataclass(frozen=True)
class Difference:
    """One layer on which two plans disagree; None where a plan lacks the layer."""

    layer: str
    left: Planned | None
    right: Planned | None

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        sides = {"left": self.left, "right": self.right}
        found = {side: None if each is None else each.to_dict() for side, each in sides.items()}
        return {"layer": self.layer, **found}


def diff(left: Plan, right: Plan) -> tuple[Difference, ...]:
    """Every layer on which the two plans differ, in the left plan's order."""
    names = [*left.choices, *(name for name in right.choices if name not in left.choices)]
    pairs = ((name, _planned(left, name), _planned(right, name)) for name in names)
    return tuple(Difference(*each) for each in pairs if each[1] != each[2])


def calibration_diff(left: Plan, right: Plan) -> dict[str, tuple[Any, Any]]:
    """Field of the calibration settings → its JSON value in either plan, where they differ.

    What is simulated of attention, which no layer says either, stands beside them.
    """
    one, other = _settings(left), _settings(right)
    pairs = {name: (one.get(name), other.get(name)) for name in (*one, *other)}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _settings(plan: Plan) -> dict[str, Any]:
    """The plan's calibration settings, those of its sampling among the others."""
    settings = {} if plan.calibration is None else plan.calibration.to_dict()
    sampling = settings.pop("sampling", None) or {}
    attention = plan.simulated_attention
    simulated = {} if attention is None else {"simulated_attention": attention.to_dict()}
    return settings | sampling | simulated


def _planned(plan: Plan, name: str) -> Planned | None:
    choice = plan.choices.get(name)
    if choice is None:
        return None
    return Planned(choice, plan.encoding_of(name) if choice.quantized else None)
