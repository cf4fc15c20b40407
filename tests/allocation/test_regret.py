"""What uncertain scores may cost."""

import numpy as np
import pytest

from mezzotint.allocation import Limit, Option, Problem, bootstrapped_regret, solve
from mezzotint.errors import UsageError


def test_there_is_none_where_every_resample_decides_alike():
    found = bootstrapped_regret(6.0, [6.0, 6.0])
    assert (found.bound, found.mean) == (0, 0)


def test_other_solutions_count_by_what_they_lose_beyond():
    found = bootstrapped_regret(6.0, [9.0])
    assert found.bound == pytest.approx(0.5)
    assert found.mean == pytest.approx(0.5)


def test_the_bound_is_a_quantile():
    losses = [6.0] * 90 + [7.0] * 10
    found = bootstrapped_regret(6.0, losses)
    assert found.bound == pytest.approx(1 / 6)
    assert found.mean == pytest.approx(0.1 / 6)
    assert bootstrapped_regret(6.0, losses, level=0.8).bound == 0


def test_a_solution_that_happens_to_lose_less_is_no_gain():
    assert bootstrapped_regret(6.0, [5.0]).mean == 0


def solved(losses: np.ndarray, limit: int) -> list[int]:
    """Layers of which each takes 1 or 2 bytes; `losses` is what 1 byte costs. Those that do."""
    problem = Problem(
        {
            str(index): (Option(1, -loss, {"bytes": 1}), Option(2, 0.0, {"bytes": 2}))
            for index, loss in enumerate(losses)
        }
    )
    chosen = solve(problem, [Limit("bytes", limit)]).chosen
    return [int(name) for name, key in chosen.items() if key == 1]


def test_it_covers_what_sampling_really_costs():
    """In most of many draws of a sample, the true regret is below the bound of that sample."""
    rng = np.random.default_rng(0)
    truth = np.linspace(1, 3, 8)
    covered = []
    for _ in range(40):
        sample = truth * rng.normal(size=(16, 8)) ** 2  # of χ², as squared projections are
        means, own = sample.mean(0), solved(sample.mean(0), 12)
        others = [solved(sample[rng.integers(16, size=16)].mean(0), 12) for _ in range(40)]
        losses = [float(means[each].sum()) for each in others]
        bound = bootstrapped_regret(float(means[own].sum()), losses).bound
        best = np.sort(truth)[:4].sum()
        covered.append((truth[own].sum() - best) / best <= bound)
    assert np.mean(covered) >= 0.85


def test_nothing_lost_is_no_division_by_zero():
    assert bootstrapped_regret(0.0, [0.0]).bound == 0


@pytest.mark.parametrize("level", [0, 1, -0.5, 2])
def test_the_level_is_a_confidence(level: float):
    with pytest.raises(UsageError, match="level"):
        bootstrapped_regret(1.0, [1.0], level=level)


def test_there_have_to_be_resamples():
    with pytest.raises(UsageError, match="others"):
        bootstrapped_regret(1.0, [])
