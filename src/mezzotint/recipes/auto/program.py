"""The integer program: one candidate per layer, of least loss within all limits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property

from mezzotint.allocation import Limit, Option, Problem, Relaxation, Solution, solve
from mezzotint.errors import InfeasibleBudgetError
from mezzotint.formats import FLOAT
from mezzotint.models import Layer
from mezzotint.plan import Choice
from mezzotint.recipes.auto.losses import Losses
from mezzotint.recipes.auto.names import input_name, weight_name
from mezzotint.recipes.costs import BYTES, byte_limit, choice_bytes
from mezzotint.recipes.latency import PICOSECONDS, Deadline
from mezzotint.recipes.study import Study

FLOATING_MACS = "multiply-accumulates with floating inputs"

Costs = Mapping[str, Mapping[Choice, Mapping[str, int]]]
"""Layer → candidate → resource → what it takes of it."""


@dataclass(frozen=True)
class IntegerProgram:
    """All of the integer program but the losses.

    Attributes:
        costs: what every candidate takes of every resource.
        limits: on the resources.
        emphasis: layer → factor of its weight's losses, where that is another than 1.
    """

    costs: Costs
    limits: tuple[Limit, ...]
    emphasis: Mapping[str, float] = field(default_factory=dict)

    def loss(self, losses: Losses, layer: str, choice: Choice) -> float:
        """Loss of a candidate as it counts here."""
        factor = self.emphasis.get(layer, 1.0)
        return factor * losses.weight(layer, choice) + losses.input(layer, choice)

    def problem(self, losses: Losses) -> Problem:
        """The layers' options, scored by what they lose."""
        return Problem(
            {
                name: tuple(
                    Option(choice, -self.loss(losses, name, choice), cost)
                    for choice, cost in each.items()
                )
                for name, each in self.costs.items()
            }
        )

    def solve(self, losses: Losses) -> Solution:
        """The candidates of least Σ loss within the limits."""
        return solve(self.problem(losses), self.limits)

    def roughly_solved(self, losses: Losses) -> dict[str, Choice]:
        """Candidates of nearly the least Σ loss within the limits: for many losses, fast."""
        found = self._relaxation.solve(
            {
                name: {choice: self.loss(losses, name, choice) for choice in each}
                for name, each in self.costs.items()
            }
        )
        if found is None:
            return chosen(self.solve(losses))
        return found

    @cached_property
    def _relaxation(self) -> Relaxation[Choice]:
        return Relaxation.of(self.costs, self.limits)

    def used(self, choices: Mapping[str, Choice], resource: str) -> int:
        """Use that a plan makes of a resource."""
        return sum(self.costs[name][choice][resource] for name, choice in choices.items())

    def within(self, most: int) -> IntegerProgram:
        """The same program with at most so many bytes of the layers' weights."""
        return replace(self, limits=(*self.limits, Limit(BYTES, maximum=most)))

    def allows(self, choices: Mapping[str, Choice]) -> bool:
        """True where a plan keeps to all limits."""
        return all(self.used(choices, each.resource) <= each.maximum for each in self.limits)


def integer_program(
    study: Study,
    candidates: Mapping[str, Sequence[Choice]],
    share: float | None,
    timed: Deadline | None,
) -> IntegerProgram:
    """Costs of all candidates, and the limits that the budget sets.

    Args:
        study: its job has the budget.
        candidates: by layer.
        share: least share of the multiply-accumulates with quantized inputs; None for any. Layers
            whose input is pinned to float do not count.
        timed: the limit on latency; None for none.

    Raises:
        InfeasibleBudgetError: nothing keeps to all limits; names the nearest feasible.
    """
    budget = study.job.budget
    costs: dict[str, dict[Choice, dict[str, int]]] = {}
    # Inputs pinned to float are decided: the share is of the multiplications of the others.
    pinned = {layer.name: study.restrictions.pin(layer.name) for layer in study.layers}
    decided = {n for n, pin in pinned.items() if pin is not None and pin.activation == FLOAT}
    stored: dict[str, dict[Choice, int]] = {}
    for layer in study.layers:
        weight, choices = study.weight(layer), candidates[layer.name]
        stored[layer.name] = {choice: choice_bytes(layer, choice, weight) for choice in choices}
        costs[layer.name] = {
            choice: {
                BYTES: n,
                FLOATING_MACS: 0 if layer.name in decided else floating_macs(layer, choice),
            }
            for choice, n in stored[layer.name].items()
        }
    limits: list[Limit] = []
    if budget.limits_bytes:
        limits.append(byte_limit(budget, study.job.denoiser, study.layers, stored))
    if share is not None:
        free = [layer for layer in study.layers if layer.name not in decided]
        limits.append(share_limit(share, free, costs))
    if timed is not None:
        for name, each in costs.items():
            for choice, cost in each.items():
                cost[PICOSECONDS] = timed.cost(name, choice)
        timed.check(costs, limits)
        limits.append(timed.limit)
    program = IntegerProgram(costs, tuple(limits))
    program.solve(nothing_lost(candidates))  # raises where limits exclude each other
    return program


def floating_macs(layer: Layer, choice: Choice) -> int:
    """Multiply-accumulates of the layer that a choice leaves with a floating input."""
    return (layer.macs or 0) if choice.activation == FLOAT else 0


def share_limit(share: float, layers: Sequence[Layer], costs: Costs) -> Limit:
    """The limit on multiply-accumulates with floating inputs, exact for the decimal `share`.

    Raises:
        InfeasibleBudgetError: too many inputs cannot be quantized; names the largest share.
    """
    total = sum(layer.macs or 0 for layer in layers)
    most = math.floor((1 - Fraction(str(share))) * total)
    least = sum(min(cost[FLOATING_MACS] for cost in costs[n.name].values()) for n in layers)
    if least > most:
        # Rounded down, so that asking for what is named will do.
        nearest = math.floor(Fraction(total - least, total) * 1000) / 1000
        raise InfeasibleBudgetError(
            f"act_share {share:g} cannot be met: with these formats the inputs of at most "
            f"{nearest:g} of the multiply-accumulates can be quantized; ask for that or less"
        )
    return Limit(FLOATING_MACS, maximum=most)


def nothing_lost(candidates: Mapping[str, Sequence[Choice]]) -> Losses:
    """Losses of 0: a program of them only asks whether its limits can be kept to."""
    weights = {n: {weight_name(each): 0.0 for each in own} for n, own in candidates.items()}
    inputs = {n: {input_name(each): 0.0 for each in own} for n, own in candidates.items()}
    return Losses(weights, inputs)


def chosen(solution: Solution) -> dict[str, Choice]:
    """Layer → the candidate that a solution has for it."""
    return {name: key for name, key in solution.chosen.items() if isinstance(key, Choice)}
