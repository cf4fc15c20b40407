import pickle
from fractions import Fraction

import numpy as np
import pytest

from mezzotint.allocation import Limit, Option, Problem, solve
from mezzotint.errors import BudgetError, UsageError

NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize("value", [NAN, INFINITY, -INFINITY, None, "1", 1j, 10**400])
def test_an_option_takes_finite_numbers_only(value):
    with pytest.raises(UsageError, match="option 'int4', score: "):
        Option("int4", value, {})
    with pytest.raises(UsageError, match="option 'int4', cost 'bytes': "):
        Option("int4", 0.0, {"bytes": value})


@pytest.mark.parametrize("value", [NAN, INFINITY, None, "1"])
def test_a_limit_takes_finite_numbers_only(value):
    with pytest.raises(BudgetError, match="bytes, maximum: "):
        Limit("bytes", value)
    if value is not None:
        with pytest.raises(BudgetError, match="bytes, minimum: "):
            Limit("bytes", 1, value)


def test_a_limit_is_no_empty_window():
    with pytest.raises(BudgetError, match="bytes: the minimum 3 is above the maximum 2; swap them"):
        Limit("bytes", 2, 3)


def test_numbers_keep_their_exact_values():
    option = Option(1, np.float32(0.5), {"a": 2**60 + 1, "b": Fraction(1, 3), "c": np.int64(7)})
    assert option.costs == {"a": 2**60 + 1, "b": Fraction(1, 3), "c": 7}
    assert [type(cost) for cost in option.costs.values()] == [int, Fraction, int]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({}, "the problem has no layers"),
        ({"conv_in": ()}, "layer 'conv_in': has no options"),
        ({"conv_in": (Option(4, 0, {}), Option(4, 1, {}))}, "layer 'conv_in': two options share"),
    ],
)
def test_a_problem_needs_layers_with_distinct_options(layers, message):
    with pytest.raises(UsageError, match=message):
        Problem(layers)


def test_a_limited_resource_must_be_a_cost_of_every_option():
    problem = Problem(
        {
            "a": (Option(4, 0, {"bytes": 1, "ms": 1}),),
            "b": (Option(8, 0, {"bytes": 1}),),
        }
    )
    message = r"'ms': layer 'b', option 8 has no such cost \(it has: bytes\)"
    with pytest.raises(BudgetError, match=message):
        solve(problem, [Limit("ms", 1)])


def test_scores_that_differ_by_more_than_a_float_are_refused():
    problem = Problem({"a": (Option(4, -1.5e308, {}), Option(8, 1.5e308, {}))})
    with pytest.raises(UsageError, match="scale them down"):
        solve(problem)


@pytest.mark.parametrize("effort", [{"gap": -1}, {"gap": NAN}, {"time_limit": 0}])
def test_efforts_out_of_their_domain_are_refused(effort):
    with pytest.raises(UsageError, match=next(iter(effort))):
        solve(Problem({"a": (Option(4, 0, {}),)}), **effort)


def test_values_can_be_pickled_for_other_processes():
    problem = Problem({"a": (Option(4, 0, {"bytes": 1}),)})
    assert pickle.loads(pickle.dumps(problem)) == problem
