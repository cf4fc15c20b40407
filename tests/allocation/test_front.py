from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mezzotint.allocation import Limit, Option, Problem, pareto_front
from mezzotint.errors import BudgetError, InfeasibleBudgetError, UsageError
from tests.allocation.problems import (
    assignments,
    problems,
    score,
    sdxl_shaped,
    use,
    within,
)

# Sums of these are exact in float64, so that which points dominate which is beyond doubt.
exact_problems = problems(
    scores=st.integers(-6, 6).map(float), costs=st.one_of(st.integers(0, 9), st.integers(0, 10**9))
)


def enumerated_front(problem, limits=()):
    """(use, score) of every assignment that no other dominates, in the order of use."""
    found = sorted(
        (use(options, "bytes"), -score(options))
        for options in assignments(problem)
        if within(options, limits)
    )
    front = []
    for amount, negated in found:
        if not front or -negated > front[-1][1]:
            front.append((amount, -negated))
    return front


def points(front):
    return [(solution.used["bytes"], solution.score) for solution in front]


@given(exact_problems)
def test_the_whole_front_is_that_of_enumeration(problem):
    assert points(pareto_front(problem, "bytes", points=None)) == enumerated_front(problem)


@given(exact_problems, st.data())
def test_the_whole_front_within_another_limit_is_that_of_enumeration(problem, data):
    options = data.draw(st.sampled_from(assignments(problem)))
    limits = [Limit("milliseconds", use(options, "milliseconds"))]
    expected = enumerated_front(problem, limits)
    assert points(pareto_front(problem, "bytes", limits, points=None)) == expected


@given(exact_problems, st.integers(2, 9))
def test_some_points_are_points_of_the_whole_front_with_both_its_ends(problem, count):
    whole = enumerated_front(problem)
    some = points(pareto_front(problem, "bytes", points=count))
    assert set(some) <= set(whole)
    assert len(some) <= count
    assert (some[0], some[-1]) == (whole[0], whole[-1])


@given(exact_problems, st.data())
def test_some_points_within_another_limit_are_points_of_that_front(problem, data):
    options = data.draw(st.sampled_from(assignments(problem)))
    limits = [Limit("milliseconds", use(options, "milliseconds"))]
    whole = enumerated_front(problem, limits)
    some = points(pareto_front(problem, "bytes", limits, points=4))
    assert set(some) <= set(whole)
    assert (some[0], some[-1]) == (whole[0], whole[-1])


def test_layers_may_have_different_numbers_of_options():
    def option(key, score, bytes_=0, milliseconds=0):
        return Option(key, score, {"bytes": bytes_, "milliseconds": milliseconds})

    three = (option("a", -1.0), option("b", 0.0, 10**9), option("c", 0.0, 0, 1))
    two = (option("a", 1.0, 3), option("b", 0.0))
    one = (option("a", 0.0),)
    problem = Problem({"three": three, "one": one, "other": one, "two": two})
    limits = [Limit("milliseconds", 0)]
    found = points(pareto_front(problem, "bytes", limits, points=4))
    assert found == enumerated_front(problem, limits)


def test_a_large_front_rises_strictly_and_is_proven_throughout():
    scores, sizes = sdxl_shaped()
    problem = Problem(
        {
            name: tuple(
                Option(bits, value, {"bytes": bits * sizes[name] // 8})
                for bits, value in by_bits.items()
            )
            for name, by_bits in scores.items()
        }
    )
    front = pareto_front(problem, "bytes", points=9)
    assert len(front) == 9
    for lower, upper in pairwise(front):
        assert lower.used["bytes"] < upper.used["bytes"]
        assert lower.score < upper.score
    assert max(solution.gap for solution in front) <= 1e-6


SMALL = Problem({"a": (Option(2, 0, {"bytes": 2}), Option(4, 1, {"bytes": 4}))})


def test_fewer_than_two_points_are_refused():
    with pytest.raises(UsageError, match="points: is 1; give at least 2"):
        pareto_front(SMALL, "bytes", points=1)


def test_an_unknown_resource_is_refused():
    with pytest.raises(BudgetError, match="'volts': layer 'a', option 2 has no such cost"):
        pareto_front(SMALL, "volts")


def test_limits_that_cannot_be_met_are_an_error_not_an_empty_front():
    with pytest.raises(InfeasibleBudgetError, match=r"nearest feasible is 2\.0"):
        pareto_front(SMALL, "bytes", [Limit("bytes", 1)])
