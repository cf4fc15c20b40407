"""The values of an allocation problem: options, limits, the problem and its solution."""

from __future__ import annotations

import math
import numbers
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeAlias

from mezzotint.errors import BudgetError, MezzotintError, UsageError

Number: TypeAlias = float | Fraction
"""A finite real number, taken at its exact value: int, float or Fraction."""


def exact(value: Any, what: str, error: type[MezzotintError] = UsageError) -> Number:
    """Return `value` as a plain int, float or Fraction; raises `error` unless finite and real."""
    if not isinstance(value, numbers.Real):
        raise error(f"{what}: is {value!r}; give a finite number")
    try:
        approximate = float(value)
    except OverflowError as cause:
        raise error(f"{what}: exceeds what a float can hold; scale it down") from cause
    if not math.isfinite(approximate):
        raise error(f"{what}: is {approximate}; give a finite number")
    if isinstance(value, numbers.Integral):
        return int(value)
    return value if isinstance(value, Fraction) else approximate


@dataclass(frozen=True)
class Option:
    """One choice of one layer.

    Args:
        key: What the choice is called in the solution, e.g. its bits or its format's name.
        score: What choosing it adds to the total score; larger is better, any unit.
        costs: What it uses of each resource, e.g. `{"bytes": 1234, "milliseconds": 0.2}`.
    """

    key: Hashable
    score: float
    costs: Mapping[str, Number]

    def __post_init__(self) -> None:
        score = float(exact(self.score, f"option {self.key!r}, score"))
        costs = {
            name: exact(cost, f"option {self.key!r}, cost {name!r}")
            for name, cost in self.costs.items()
        }
        object.__setattr__(self, "score", score)
        object.__setattr__(self, "costs", costs)


@dataclass(frozen=True)
class Limit:
    """A bound on the total use of one resource.

    Args:
        resource: A name among the costs of every option.
        maximum: The most that may be used, itself included.
        minimum: The least that must be used, itself included; `None` for no lower side.
    """

    resource: str
    maximum: Number
    minimum: Number | None = None

    def __post_init__(self) -> None:
        maximum = exact(self.maximum, f"{self.resource}, maximum", BudgetError)
        object.__setattr__(self, "maximum", maximum)
        if self.minimum is None:
            return
        minimum = exact(self.minimum, f"{self.resource}, minimum", BudgetError)
        object.__setattr__(self, "minimum", minimum)
        if minimum > maximum:
            raise BudgetError(
                f"{self.resource}: the minimum {minimum} is above the maximum {maximum}; swap them"
            )

    def __str__(self) -> str:
        if self.minimum is None:
            return f"at most {float(self.maximum)!r}"
        return f"from {float(self.minimum)!r} to {float(self.maximum)!r}"


@dataclass(frozen=True)
class Problem:
    """The options of every layer, of which exactly one is chosen per layer.

    Args:
        layers: Layer name → its options: at least one, with distinct keys.
    """

    layers: Mapping[str, tuple[Option, ...]]

    def __post_init__(self) -> None:
        if not self.layers:
            raise UsageError("the problem has no layers; give at least one")
        layers = {name: tuple(options) for name, options in self.layers.items()}
        for name, options in layers.items():
            if not options:
                raise UsageError(f"layer {name!r}: has no options; give at least one")
            if len({option.key for option in options}) < len(options):
                raise UsageError(f"layer {name!r}: two options share a key; make them distinct")
        object.__setattr__(self, "layers", layers)


@dataclass(frozen=True)
class Solution:
    """A choice for every layer, with the proof of how good it is.

    Attributes:
        chosen: Layer name → key of the chosen option.
        score: Sum of the chosen scores.
        bound: No choice within the limits scores higher than this (up to rounding in float64).
        gap: `bound - score` as a fraction of the score that the limits cost, that is of what
            the best options would score beyond `score` if there were none; 0 is proven optimal.
        used: Resource → sum of the chosen costs, for every resource that all options name.
        seconds: Wall time spent.
    """

    chosen: Mapping[str, Hashable]
    score: float
    bound: float
    gap: float
    used: Mapping[str, float]
    seconds: float
