"""The relaxation: within the limits, and nearly as good as the optimum."""

from __future__ import annotations

import numpy as np
import pytest

from mezzotint.allocation import Limit, Option, Problem, Relaxation, solve
from mezzotint.errors import UsageError


def example(seed: int, layers: int = 60, options: int = 6):
    generator = np.random.default_rng(seed)
    losses, costs = {}, {}
    for index in range(layers):
        size, scale = int(generator.integers(10, 1000)), float(generator.lognormal(0, 2))
        losses[f"l{index}"] = {
            key: scale * 4.0**-key * generator.lognormal(0, 0.1) for key in range(options)
        }
        costs[f"l{index}"] = {
            key: {"bytes": size * (key + 1), "time": int(generator.integers(1, 100))}
            for key in range(options)
        }
    return losses, costs


def used(costs, chosen, resource: str) -> int:
    return sum(costs[name][key][resource] for name, key in chosen.items())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("resources", [("bytes",), ("bytes", "time")], ids=str)
def test_it_is_within_the_limits_and_near_the_optimum(seed: int, resources: tuple[str, ...]):
    losses, costs = example(seed)
    least = {
        each: sum(min(c[each] for c in by.values()) for by in costs.values()) for each in resources
    }
    limits = [Limit(each, int(2.5 * least[each])) for each in resources]
    found = Relaxation.of(costs, limits).solve(losses)
    assert found is not None
    assert all(used(costs, found, limit.resource) <= limit.maximum for limit in limits)
    problem = Problem(
        {
            name: tuple(Option(key, -loss, costs[name][key]) for key, loss in by_key.items())
            for name, by_key in losses.items()
        }
    )
    best = -solve(problem, limits).score
    assert sum(losses[name][key] for name, key in found.items()) <= 1.1 * best


def test_without_limits_every_layer_takes_its_best():
    losses, costs = example(0)
    found = Relaxation.of(costs, []).solve(losses)
    assert found == {name: min(each, key=each.__getitem__) for name, each in losses.items()}


def test_limits_that_exclude_each_other_leave_nothing():
    losses, costs = example(0)
    assert Relaxation.of(costs, [Limit("bytes", 1)]).solve(losses) is None


def test_a_lower_side_is_refused():
    _, costs = example(0)
    with pytest.raises(UsageError, match="lower side"):
        Relaxation.of(costs, [Limit("bytes", 5, 1)])
