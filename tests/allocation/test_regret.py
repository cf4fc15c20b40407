"""What uncertain scores may cost."""

import numpy as np
import pytest

from mezzotint.allocation import Limit, Option, Problem, Solution, bootstrapped_regret, solve
from mezzotint.errors import UsageError

LIMIT = [Limit("bytes", 5)]


def problem(losses: np.ndarray) -> Problem:
    """Every layer takes 1 or 2 bytes; `losses` [layers] is what 1 byte costs, 2 cost nothing."""
    return Problem(
        {
            f"layer{index}": (Option(1, -loss, {"bytes": 1}), Option(2, 0.0, {"bytes": 2}))
            for index, loss in enumerate(losses)
        }
    )


@pytest.fixture
def solved() -> tuple[Problem, Solution]:
    """One of four layers may have 2 bytes: the last, so that 1 + 2 + 3 are lost."""
    given = problem(np.array([1.0, 2.0, 3.0, 4.0]))
    return given, solve(given, LIMIT)


def test_there_is_none_where_every_resample_decides_alike(solved):
    given, solution = solved
    resampled = [problem(np.array([1.0, 2.0, 3.0, 4.0]) * scale) for scale in (0.5, 1, 7)]
    found = bootstrapped_regret(given, LIMIT, solution, resampled)
    assert (found.bound, found.mean) == (0, 0)


def test_other_decisions_are_judged_by_the_scores_of_the_problem(solved):
    given, solution = solved
    other = problem(np.array([9.0, 2.0, 3.0, 4.0]))  # would keep the first: 2 + 3 + 4 are lost
    found = bootstrapped_regret(given, LIMIT, solution, [other])
    assert found.bound == pytest.approx((9 - 6) / 6)
    assert found.mean == pytest.approx((9 - 6) / 6)


def test_the_bound_is_a_quantile(solved):
    given, solution = solved
    same, other = problem(np.array([1.0, 2, 3, 4])), problem(np.array([1.0, 2, 5, 4]))
    resampled = [same] * 90 + [other] * 10
    found = bootstrapped_regret(given, LIMIT, solution, resampled)
    assert found.bound == pytest.approx(1 / 6)
    assert found.mean == pytest.approx(0.1 / 6)
    assert bootstrapped_regret(given, LIMIT, solution, resampled, level=0.8).bound == 0


def test_it_covers_what_sampling_really_costs():
    """In most of many draws of a sample, the true regret is below the bound of that sample."""
    rng = np.random.default_rng(0)
    truth = np.linspace(1, 3, 8)
    limits = [Limit("bytes", 12)]
    covered = []
    for _ in range(40):
        sample = truth * rng.normal(size=(16, 8)) ** 2  # of χ², as squared projections are
        given = problem(sample.mean(0))
        solution = solve(given, limits)
        resampled = [problem(sample[rng.integers(16, size=16)].mean(0)) for _ in range(40)]
        bound = bootstrapped_regret(given, limits, solution, resampled).bound
        best = np.sort(truth)[:4].sum()
        lost = sum(truth[int(name[5:])] for name, key in solution.chosen.items() if key == 1)
        covered.append((lost - best) / best <= bound)
    assert np.mean(covered) >= 0.85


def test_nothing_lost_is_no_division_by_zero():
    given = problem(np.zeros(4))
    found = bootstrapped_regret(given, LIMIT, solve(given, LIMIT), [problem(np.ones(4))])
    assert found.bound == 0


@pytest.mark.parametrize("level", [0, 1, -0.5, 2])
def test_the_level_is_a_confidence(solved, level: float):
    with pytest.raises(UsageError, match="level"):
        bootstrapped_regret(solved[0], LIMIT, solved[1], [solved[0]], level=level)


def test_there_have_to_be_resamples(solved):
    with pytest.raises(UsageError, match="resampled"):
        bootstrapped_regret(solved[0], LIMIT, solved[1], [])


def test_resamples_are_of_the_same_layers(solved):
    with pytest.raises(UsageError, match="other layers or options"):
        bootstrapped_regret(solved[0], LIMIT, solved[1], [problem(np.ones(3))])
