"""Allocation: losses of all candidates, and the plan of least loss within the limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from mezzotint.errors import ProbeError
from mezzotint.measuring import MOST_PROBES
from mezzotint.plan import Choice
from mezzotint.recipes.auto.doubt import Doubt, doubt_about
from mezzotint.recipes.auto.estimates import Estimates
from mezzotint.recipes.auto.losses import Losses
from mezzotint.recipes.auto.program import chosen
from mezzotint.recipes.auto.search import Search
from mezzotint.recipes.auto.sensitivity import units_of
from mezzotint.recipes.auto.verification import verified


@dataclass(frozen=True)
class Found:
    """A plan, and how it was come by.

    Attributes:
        choices: of all layers.
        losses: of all candidates, estimated or measured.
        summary: part of the plan's context, JSON values.
        notes: for people.
        clips: layer → clip of its static input, where that is not the first among the options'.
        probes: how many it took to tell the losses; 0 where all were measured.
    """

    choices: Mapping[str, Choice]
    losses: Losses
    summary: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    clips: Mapping[str, str] = field(default_factory=dict)
    probes: int = 0

    def noting(self, note: str) -> Found:
        """The same, with one more note."""
        return replace(self, notes=(*self.notes, note))


def allocated(search: Search) -> Found:
    """The plan of least Σ loss, by losses that are predicted, measured, or both."""
    if not search.probes:
        return by_measuring(search)
    try:
        estimates, doubt = probed(search)
    except ProbeError as cause:
        return by_measuring(search).noting(f"sensitivity was measured, not probed: {cause}")
    count = len(estimates.projections)
    summary = {"probes": count, "regret_bound": round(doubt.regret.bound, 4)}
    if search.options.sensitivity == "probes":
        solution = search.program.solve(estimates.losses)
        return Found(
            chosen(solution),
            estimates.losses,
            {"sensitivity": "probes", **summary, "allocation_gap": solution.gap},
            clips=estimates.clips,
            probes=count,
        )
    checked = verified(search.program, estimates, search.clipped(estimates.clips).measured)
    return Found(
        chosen(checked.solution),
        checked.losses,
        {
            "sensitivity": "hybrid",
            **summary,
            "measured_formats": len(checked.units),
            "allocation_gap": checked.solution.gap,
        },
        clips=estimates.clips,
        probes=count,
    )


def by_measuring(search: Search) -> Found:
    """Measure every format of every layer on its own."""
    units = [unit for name, each in search.candidates.items() for unit in units_of(name, each)]
    losses = Losses(*search.measured(units))
    solution = search.program.solve(losses)
    return Found(
        chosen(solution), losses, {"sensitivity": "measured", "allocation_gap": solution.gap}
    )


def probed(search: Search) -> tuple[Estimates, Doubt]:
    """Losses by as many probes as it takes for the plan to be in little doubt.

    Raises:
        ProbeError: the model cannot be probed.
    """
    count = search.options.probes
    while True:
        estimates = Estimates(search.projections(count))
        doubt = doubt_about(search.program, estimates, estimates.losses)
        if doubt.regret.bound <= search.options.regret or count >= MOST_PROBES:
            return estimates, doubt
        count = min(2 * count, MOST_PROBES)
