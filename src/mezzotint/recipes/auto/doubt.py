"""Doubt about a plan found from few probes: what it may lose, and where it is contested."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mezzotint.allocation import Regret, bootstrapped_regret
from mezzotint.plan import Choice
from mezzotint.recipes.auto.estimates import Estimates
from mezzotint.recipes.auto.losses import Losses
from mezzotint.recipes.auto.program import IntegerProgram

RESAMPLES = 40
"""Bootstrap samples."""

_SEED = 0


@dataclass(frozen=True)
class Doubt:
    """Plans that other probes of the same number might have led to.

    Attributes:
        regret: what the plan may lose beyond the best.
        rivals: layer → candidate of another plan → how many have it.
    """

    regret: Regret
    rivals: Mapping[str, Mapping[Choice, int]]


def doubt_about(program: IntegerProgram, estimates: Estimates, known: Losses) -> Doubt:
    """Solve the program again for bootstrap samples of the probes.

    Args:
        program: limits and costs.
        estimates: losses by probes.
        known: the losses to go by: estimates, or what was measured in their place, which is in
            no doubt.
    """
    generator = np.random.default_rng(_SEED)
    base = estimates.losses
    plan = program.roughly_solved(known)
    losses, rivals = [], dict[str, dict[Choice, int]]()
    for sampled in estimates.resampled(generator, RESAMPLES):
        other = program.roughly_solved(sampled.where_unchanged(base, known))
        losses.append(known.of_plan(other))
        for name, choice in other.items():
            if choice != plan[name]:
                counts = rivals.setdefault(name, {})
                counts[choice] = counts.get(choice, 0) + 1
    return Doubt(bootstrapped_regret(known.of_plan(plan), losses), rivals)
