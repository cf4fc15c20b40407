"""Verification: what probes leave in doubt is measured, and the program solved again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mezzotint.allocation import Solution
from mezzotint.plan import Choice
from mezzotint.recipes.auto.doubt import RESAMPLES, Doubt, doubt_about
from mezzotint.recipes.auto.estimates import Estimates
from mezzotint.recipes.auto.losses import ByFormat, Losses
from mezzotint.recipes.auto.program import IntegerProgram, chosen
from mezzotint.recipes.auto.sensitivity import Unit, units_of

BEYOND_FIRST_ORDER = 0.03
"""Noise from which on a first-order estimate is not trusted."""

MOST_MEASURED = 48
"""Formats that are measured for one plan: those that matter most to it."""

ROUNDS = 3
"""Programs solved with what was measured: each may choose what was not yet."""


@dataclass(frozen=True)
class Verified:
    """A solution whose doubtful losses were measured.

    Attributes:
        solution: of the program.
        losses: estimated or measured.
        units: what was measured.
    """

    solution: Solution
    losses: Losses
    units: tuple[Unit, ...]


def verified(
    program: IntegerProgram,
    estimates: Estimates,
    measured: Callable[[Sequence[Unit]], tuple[ByFormat, ByFormat]],
) -> Verified:
    """Solve; measure the contested formats, and chosen ones beyond first order; solve again.

    Layers of which no probe tells anything are measured in every format before: no gradient reaches
    them, which is not to say that nothing of them reaches the output.

    Contested are formats between which programs of resampled probes differ. Where there are more
    than can be measured, those go first that are at stake most: by their loss, and by how often
    they were chosen.

    Args:
        program: costs and limits.
        estimates: losses by probes.
        measured: losses of some weights and of some inputs, by really running them.
    """
    losses, unseen = estimates.losses, _unseen(program, estimates.losses)
    if unseen:
        losses = losses.with_measured(*measured(unseen))
    units = dict[Unit, None]()
    solution = program.solve(losses)
    for _ in range(ROUNDS):
        plan = chosen(solution)
        doubt = doubt_about(program, estimates, losses)
        wanted = [unit for unit in _in_doubt(plan, losses, doubt) if unit not in units]
        wanted = wanted[: MOST_MEASURED - len(units)]
        if not wanted:
            break
        losses = losses.with_measured(*measured(wanted))
        units.update(dict.fromkeys(wanted))
        solution = program.solve(losses)
    return Verified(solution, losses, (*unseen, *units))


def _unseen(program: IntegerProgram, losses: Losses) -> list[Unit]:
    """Every format of the layers whose estimates are all exactly 0."""
    return [
        unit
        for layer, choices in program.costs.items()
        if not any(losses.of(layer, choice) for choice in choices)
        for unit in units_of(layer, choices)
    ]


def _in_doubt(plan: Mapping[str, Choice], losses: Losses, doubt: Doubt) -> list[Unit]:
    """Formats to be measured, those at stake most first."""
    stakes: dict[Unit, float] = {}
    for unit, loss, times in _stakes(plan, losses, doubt):
        stakes[unit] = max(stakes.get(unit, 0.0), loss * times)
    return sorted(stakes, key=lambda unit: -stakes[unit])


def _stakes(
    plan: Mapping[str, Choice], losses: Losses, doubt: Doubt
) -> Iterator[tuple[Unit, float, int]]:
    """Doubtful formats, each with its loss and the number of solutions that it may change."""
    for layer, choice in plan.items():
        for unit in units_of(layer, [choice]):
            loss = losses.of_format(layer, unit.format, of_input=unit.of_input)
            if loss > BEYOND_FIRST_ORDER:
                yield unit, loss, RESAMPLES
        for rival, times in doubt.rivals.get(layer, {}).items():
            own, other = (dict.fromkeys(units_of(layer, [each])) for each in (choice, rival))
            for unit in (*own, *other):
                if unit not in own or unit not in other:
                    loss = losses.of_format(layer, unit.format, of_input=unit.of_input)
                    yield unit, loss, times
