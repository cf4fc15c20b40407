import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mezzotint.allocation import Limit, Option, Problem, solve
from mezzotint.errors import BudgetError, InfeasibleBudgetError
from tests.allocation.problems import assignments, best_score, problems, use


def message(problem, *limits):
    with pytest.raises(InfeasibleBudgetError) as caught:
        solve(problem, limits)
    return str(caught.value)


def nearest(text):
    return float(re.findall(r"nearest feasible is (\S+?)(?:[,;]|$| \()", text)[0])


PROBLEM = Problem(
    {
        name: tuple(Option(bits, bits, {"bytes": 100 * bits, "ms": 9 - bits}) for bits in (2, 4, 8))
        for name in ("first", "second")
    }
)


def test_too_little_names_the_least_attainable():
    assert message(PROBLEM, Limit("bytes", 300)) == (
        "bytes: at most 300.0 asked, but the layers can use only 400.0 to 1600.0; "
        "the nearest feasible is 400.0"
    )


def test_too_much_names_the_most_attainable():
    assert message(PROBLEM, Limit("bytes", 3000, 2000)) == (
        "bytes: from 2000.0 to 3000.0 asked, but the layers can use only 400.0 to 1600.0; "
        "the nearest feasible is 1600.0"
    )


def test_a_window_between_attainable_totals_names_the_nearer():
    text = message(PROBLEM, Limit("bytes", 760, 690))
    assert text.startswith("no choice of options keeps to the limits: bytes: from 690.0 to 760.0")
    assert nearest(text) == 800


def test_limits_that_exclude_each_other_are_all_named():
    text = message(PROBLEM, Limit("bytes", 600), Limit("ms", 9))
    assert "bytes: at most 600.0 asked, of 400.0 to 1600.0" in text
    assert "ms: at most 9.0 asked, of 2.0 to 14.0" in text
    assert text.endswith("(all of these together)")


@given(problems(), st.floats(0.1, 1e9))
def test_the_nearest_to_too_little_is_feasible_as_printed(problem, shortfall):
    least = min(use(options, "bytes") for options in assignments(problem))
    limit = Limit("bytes", float(least) - shortfall)
    assume(limit.maximum < least)
    assert best_score(problem, [Limit("bytes", nearest(message(problem, limit)))]) is not None


@given(problems(costs=st.integers(0, 30)), st.integers(0, 150))
def test_the_nearest_to_a_missed_total_is_the_nearest_of_all(problem, wanted):
    totals = {use(options, "bytes") for options in assignments(problem)}
    assume(wanted not in totals)
    found = nearest(message(problem, Limit("bytes", wanted, wanted)))
    assert found in totals
    assert abs(found - wanted) == min(abs(total - wanted) for total in totals)


def test_a_budget_error_catches_it():
    with pytest.raises(BudgetError):
        solve(PROBLEM, [Limit("bytes", 1)])
