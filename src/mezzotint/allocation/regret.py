"""The loss that uncertain scores may cost: a bootstrapped bound on the regret of a solution."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mezzotint.allocation.solver import solve
from mezzotint.allocation.values import Limit, Problem, Solution
from mezzotint.errors import UsageError


@dataclass(frozen=True)
class Regret:
    """Loss of a solution beyond that of the best one, which other samples would have shown.

    Attributes:
        bound: at the level asked for, as a fraction of the solution's loss.
        mean: of the resamples, likewise.
    """

    bound: float
    mean: float


def bootstrapped_regret(
    problem: Problem,
    limits: Sequence[Limit],
    solution: Solution,
    resampled: Iterable[Problem],
    *,
    level: float = 0.95,
) -> Regret:
    """Estimate how much worse than the true optimum a solution is, whose scores were sampled.

    As scores from a sample are to the true ones, so are scores from a resample to those of the
    sample (Efron 1979). So every resampled problem is solved, and its solution is judged by the
    scores of `problem`: what it loses against `solution` is what sampling may have cost.

    Args:
        problem: scores are losses, negated, that add up; estimated from a sample.
        limits: within which all are solved.
        solution: of `problem`, best within the limits.
        resampled: the same layers and options, scored by samples drawn with replacement.
        level: confidence, between 0 and 1.

    Raises:
        UsageError: the level is out of range, there are no resamples, or one is of other layers or
            options.
        BudgetError: as `solve`.
    """
    if not 0 < level < 1:
        raise UsageError(f"level: {level} is out of range; use a confidence between 0 and 1")
    scores = _scores(problem)
    best = math.fsum(scores[name][key] for name, key in solution.chosen.items())
    lost = []
    for other in resampled:
        if _keys(other) != _keys(problem):
            raise UsageError("a resample has other layers or options than the problem it is of")
        chosen = solve(other, limits).chosen
        lost.append(max(best - math.fsum(scores[name][key] for name, key in chosen.items()), 0.0))
    if not lost:
        raise UsageError("resampled: there are none; give one problem or more")
    loss = max(-best, float(np.finfo(np.float64).tiny))
    return Regret(float(np.quantile(lost, level)) / loss, float(np.mean(lost)) / loss)


def _scores(problem: Problem) -> dict[str, dict[Hashable, float]]:
    return {
        name: {option.key: option.score for option in options}
        for name, options in problem.layers.items()
    }


def _keys(problem: Problem) -> Mapping[str, frozenset[Hashable]]:
    return {
        name: frozenset(option.key for option in options)
        for name, options in problem.layers.items()
    }
