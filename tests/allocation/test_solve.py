import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mezzotint.allocation import Limit, Option, Problem, solve
from mezzotint.errors import BudgetError, InfeasibleBudgetError
from tests.allocation.problems import (
    RESOURCES,
    assignments,
    best_score,
    bytes_limit,
    chosen_options,
    close,
    costs,
    problems,
    scores,
    sdxl_shaped,
    use,
    within,
)


@st.composite
def limits(draw, problem, resource, *, two_sided=False):
    """A limit that some assignment just meets, loosened a little or not at all."""
    options = draw(st.sampled_from(assignments(problem)))
    amount = float(use(options, resource))
    slack = draw(st.sampled_from([0, 0.5, 2])) * draw(costs)
    return Limit(resource, amount + slack, amount - slack if two_sided else None)


def assert_optimal(problem, limits):
    expected = best_score(problem, limits)
    if expected is None:
        with pytest.raises(InfeasibleBudgetError):
            solve(problem, limits)
        return
    solution = solve(problem, limits)
    assert within(chosen_options(problem, solution), limits)
    assert close(problem, solution.score, expected)
    assert solution.bound > expected or close(problem, solution.bound, expected)
    assert solution.gap <= 1e-6


class TestOptimum:
    @given(st.data())
    def test_under_one_limit_is_that_of_enumeration(self, data):
        problem = data.draw(problems())
        assert_optimal(problem, [data.draw(limits(problem, "bytes"))])

    @given(st.data())
    def test_under_two_limits_is_that_of_enumeration(self, data):
        problem = data.draw(problems())
        assert_optimal(problem, [data.draw(limits(problem, name)) for name in RESOURCES])

    @given(st.data())
    def test_within_a_window_is_that_of_enumeration(self, data):
        problem = data.draw(problems())
        assert_optimal(problem, [data.draw(limits(problem, "bytes", two_sided=True))])

    @given(problems())
    def test_without_limits_is_the_best_of_every_layer(self, problem):
        solution = solve(problem)
        best = [max(option.score for option in options) for options in problem.layers.values()]
        assert solution.score == solution.bound == math.fsum(best)

    def test_counts_costs_of_a_hundred_digits_to_the_last(self):
        huge = 10**99
        problem = Problem(
            {
                name: (Option("small", 0, {"bytes": huge}), Option("large", 1, {"bytes": huge + 1}))
                for name in "ab"
            }
        )
        assert solve(problem, [Limit("bytes", 2 * huge)]).score == 0
        assert solve(problem, [Limit("bytes", 2 * huge + 1)]).score == 1


class TestLimits:
    def test_are_kept_to_the_last_bit(self):
        costs = [{"bytes": 0.1}, {"bytes": 0.2}]
        problem = Problem(
            {
                str(index): (Option("out", 0, {"bytes": 0}), Option("in", 1, cost))
                for index, cost in enumerate(costs)
            }
        )
        # The floats nearest to 0.1 and 0.2 add up to a little more than the one nearest to 0.3.
        assert solve(problem, [Limit("bytes", 0.3)]).score == 1
        assert solve(problem, [Limit("bytes", 0.1 + 0.2)]).score == 2

    def test_may_be_on_costs_of_any_size(self):
        costs = [4, 0, 6.6e-307]
        options = tuple(Option(key, -key, {"bytes": cost}) for key, cost in enumerate(costs))
        other = (Option("only", 0, {"bytes": 0.1}),)
        problem = Problem({"layer0": options, "layer1": other})
        found = solve(problem, [Limit("bytes", 4.2, 4.0)])
        assert found.chosen == {"layer0": 0, "layer1": "only"}
        with pytest.raises(InfeasibleBudgetError, match="nearest feasible is 4"):
            solve(problem, [Limit("bytes", 3.9, 3.8)])

    @given(st.data())
    def test_that_are_looser_never_lower_the_score(self, data):
        problem = data.draw(problems())
        tight = data.draw(limits(problem, "bytes"))
        # What an assignment uses may be a little more than the float nearest to it.
        assume(best_score(problem, [tight]) is not None)
        loose = Limit("bytes", tight.maximum + data.draw(costs))
        found = solve(problem, [tight]).score, solve(problem, [loose]).score
        assert found[0] <= found[1] or close(problem, *found)

    def test_on_a_resource_with_a_minimum_make_it_be_spent(self):
        problem = Problem(
            {
                name: (Option(2, 1, {"bytes": 2}), Option(8, 0, {"bytes": 8}))
                for name in ("first", "second")
            }
        )
        assert solve(problem, [Limit("bytes", 16, 9)]).score == 1


class TestSolution:
    def test_tells_the_total_use_of_every_resource(self):
        problem = Problem(
            {
                "a": (Option("x", 1, {"bytes": 3, "milliseconds": 0.5}),),
                "b": (Option("y", 1, {"bytes": 4, "milliseconds": 0.25}),),
            }
        )
        assert solve(problem).used == {"bytes": 7, "milliseconds": 0.75}

    def test_names_the_choice_of_every_layer(self):
        problem = Problem({"a": (Option("x", 1, {}),), "b": (Option(4, 1, {}), Option(8, 2, {}))})
        assert solve(problem).chosen == {"a": "x", "b": 8}

    @given(problems(scores=st.integers(0, 2).map(float), costs=st.integers(0, 3)), st.data())
    def test_is_the_same_every_time_also_among_ties(self, problem, data):
        limit = data.draw(limits(problem, "bytes"))
        assert solve(problem, [limit]).chosen == solve(problem, [limit]).chosen

    def test_keeps_an_honest_bound_when_time_runs_out(self):
        # Scores that follow the costs but for a small bonus are the hardest to prove.
        problem = Problem(
            {
                f"layer{i}": tuple(
                    Option(j, (cost := j * (i * 7919 % 1009 + 1000)) + 3.5 * j, {"bytes": cost})
                    for j in range(4)
                )
                for i in range(200)
            }
        )
        limit = bytes_limit(problem, 0.4)
        hurried = solve(problem, [limit], time_limit=1e-3)
        assert within(chosen_options(problem, hurried), [limit])
        assert hurried.bound >= solve(problem, [limit], time_limit=1).score

    def test_is_an_error_when_time_runs_out_before_there_is_one(self):
        problem = sdxl_problem(*sdxl_shaped())
        exactly = 1.5e10  # irrational costs: some sum may come close, none will be found to hit it
        with pytest.raises(BudgetError, match="allow more time, or widen the limits"):
            solve(problem, [Limit("milliseconds", exactly, exactly)], time_limit=1e-3)


class TestScale:
    @given(problems(scores=scores, costs=st.integers(0, 20)), st.data())
    def test_of_costs_changes_nothing(self, problem, data):
        limit = data.draw(limits(problem, "bytes"))
        scaled = Problem(
            {
                name: tuple(
                    Option(option.key, option.score, {"bytes": option.costs["bytes"] * 1e9})
                    for option in options
                )
                for name, options in problem.layers.items()
            }
        )
        assert (
            solve(problem, [limit]).chosen
            == solve(scaled, [Limit("bytes", limit.maximum * 1e9)]).chosen
        )

    def test_of_scores_changes_nothing(self):
        scores, sizes = sdxl_shaped()
        chosen = []
        for scale in (1, 1e-12):
            problem = sdxl_problem(scores, sizes, scale)
            chosen.append(solve(problem, [bytes_limit(problem, 0.3)]).chosen)
        assert chosen[0] == chosen[1]

    def test_of_one_ruinous_option_does_not_drown_the_others(self):
        def problem(ruin):
            layers = {
                f"layer{i}": (Option(2, i * 1e-6, {"bytes": 2}), Option(4, 1e-4, {"bytes": 4}))
                for i in range(10)
            }
            layers["ruined"] = (Option(2, ruin, {"bytes": 2}), Option(4, 0, {"bytes": 4}))
            return Problem(layers)

        limits = [Limit("bytes", 30, 29)]
        assert solve(problem(-1e12), limits).chosen == solve(problem(-1), limits).chosen


def sdxl_problem(scores, sizes, scale=1.0):
    return Problem(
        {
            name: tuple(
                Option(
                    bits,
                    score * scale,
                    {"bytes": bits * sizes[name] // 8, "milliseconds": bits**0.5 * sizes[name]},
                )
                for bits, score in by_bits.items()
            )
            for name, by_bits in scores.items()
        }
    )


class TestLargeModel:
    @pytest.mark.parametrize("share", [0.05, 0.3, 0.7])
    def test_is_solved_to_its_optimum(self, share):
        problem = sdxl_problem(*sdxl_shaped())
        limit = bytes_limit(problem, share)
        solution = solve(problem, [limit])
        assert solution.gap <= 1e-6
        assert within(chosen_options(problem, solution), [limit])

    def test_whose_layers_all_gain_the_same_per_byte_is_solved_too(self):
        _, sizes = sdxl_shaped()
        error = {
            name: {bits: -size * 4.0**-bits for bits in (2, 4, 8)} for name, size in sizes.items()
        }
        problem = sdxl_problem(error, sizes)
        assert solve(problem, [bytes_limit(problem, 0.3)]).gap <= 1e-6

    def test_is_solved_within_a_window_and_a_second_limit(self):
        problem = sdxl_problem(*sdxl_shaped())
        size = bytes_limit(problem, 0.5).maximum
        relaxed = solve(problem, [Limit("bytes", size)])
        limits = [
            Limit("bytes", size, 0.99 * size),
            Limit("milliseconds", 0.9995 * relaxed.used["milliseconds"]),
        ]
        solution = solve(problem, limits)
        assert solution.gap <= 1e-6
        assert solution.score < relaxed.score
        assert within(chosen_options(problem, solution), limits)
