"""Doubt about a plan found from few probes: what it may lose, and where it is contested."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mezzotint.plan import Choice
from mezzotint.recipes.auto.estimates import Estimates
from mezzotint.recipes.auto.losses import Losses
from mezzotint.recipes.auto.program import IntegerProgram

RESAMPLES = 40
"""Bootstrap samples; the second largest of them is the 95% bound."""

_SEED = 0


@dataclass(frozen=True)
class Doubt:
    """Plans that other probes of the same number might have led to.

    Attributes:
        loss: of the plan, found as the others were.
        losses: of every other plan, by the same estimates, in ascending order.
        rivals: layer → candidate of another plan → how many have it.
    """

    loss: float
    losses: tuple[float, ...]
    rivals: Mapping[str, Mapping[Choice, int]]

    @property
    def regret(self) -> float:
        """95% bound on what the plan loses beyond the best, as a share of its loss.

        Such a plan is to the true losses what those of resampled probes are to all probes'.
        """
        if not self.loss:
            return 0.0
        bound = self.losses[-1 - len(self.losses) // 20]
        return max(bound / self.loss - 1, 0.0)


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
    return Doubt(known.of_plan(plan), tuple(sorted(losses)), rivals)
