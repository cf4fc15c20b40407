"""Exchanges: moves that lower a noise known by projections only, and no moves that fit chance."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mezzotint.allocation import Moves, find_exchanges, stacked_moves
from mezzotint.errors import UsageError
from mezzotint.measuring import draw_probes
from mezzotint.models import Call

PROBES = 64
ROOM = np.array([0.0])


def projections(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, PROBES))


def moves(changes: list[np.ndarray], costs: list[float], layers: list[int] | None = None) -> Moves:
    layers = list(range(len(changes))) if layers is None else layers
    return Moves(np.array(layers), np.array(changes), np.array(costs)[:, None])


def step_call(step: int) -> Call:
    return Call((), {}, torch.zeros(2, 1), step=step)


def noise(error: np.ndarray, *changes: np.ndarray) -> float:
    return float(np.square(error + sum(changes)).mean())


def test_a_move_that_undoes_the_error_is_made():
    (error, other) = projections(2)
    found = find_exchanges(error, moves([-error, other], [0, 0]), ROOM)
    assert found.moves == (0,)
    assert found.predicted == -1


def test_bytes_come_from_a_layer_that_bears_to_lose_them():
    error, small = projections(2)
    up, down, costly = -0.5 * error, 0.01 * small, -0.9 * error
    every = moves([up, down, costly], [8, -8, 9])
    assert set(find_exchanges(error, every, ROOM).moves) == {0, 1}
    assert find_exchanges(error, moves([up], [8]), ROOM).moves == ()
    assert find_exchanges(error, moves([up], [8]), np.array([8.0])).moves == (0,)


def test_all_resources_are_kept_to():
    error, small = projections(2)
    changes = np.array([-0.5 * error, 0.01 * small])
    for second, kept in ((-1.0, 2), (1.0, 0)):
        cost = np.array([[8.0, 1.0], [-8.0, second]])
        found = find_exchanges(error, Moves(np.arange(2), changes, cost), np.zeros(2))
        assert len(found.moves) == kept


def test_a_layer_moves_once_at_the_most():
    error, _ = projections(2)
    every = moves([-0.5 * error, -0.5 * error, -0.25 * error], [0, 0, 0], [0, 0, 1])
    found = find_exchanges(error, every, ROOM)
    assert sorted(every.layer[list(found.moves)]) == [0, 1]


def test_errors_that_cancel_each_other_are_found_together():
    error, first = projections(2)
    both = moves([first, -first - error], [8, -8])
    found = find_exchanges(error, both, ROOM)
    assert set(found.moves) == {0, 1}
    assert noise(error, *both.change) < noise(error)


def test_chance_is_no_gain():
    """Of many moves that have nothing to do with the error, some fit the few projections known."""
    gains = []
    for seed in range(20):
        error, *others = projections(400, seed)
        every = moves([0.3 * each for each in others], [0.0] * len(others))
        found = find_exchanges(error, every, ROOM)
        truth = 1 + sum(0.3**2 for _ in found.moves)  # independent of the error: it only adds
        gains.append(truth - 1)
    assert np.mean(gains) < 0.3


def test_both_halves_of_the_probes_are_spread_over_the_schedule():
    """What helps at some timesteps, and does no harm at others, is a gain to both."""
    calls = [step_call(step) for step in range(8)]
    late = np.array([probe.call >= 4 for probe in draw_probes(calls, PROBES)])
    error, _ = projections(2)
    change = np.where(late, -0.9 * error, 0.0)
    found = find_exchanges(error, moves([change], [0]), ROOM)
    assert found.moves == (0,)
    assert found.predicted == pytest.approx(noise(error, change) / noise(error) - 1, abs=0.15)


def test_few_projections_are_refused():
    with pytest.raises(UsageError, match="3 projections tell too little"):
        find_exchanges(np.zeros(3), moves([np.zeros(3)], [0]), ROOM)


def test_moves_are_stacked_with_what_they_stand_for():
    changes = {"a": {"x": np.zeros(4), "y": np.ones(4)}, "b": {"x": np.full(4, 2.0)}}
    costs = {
        "a": {"x": {"bytes": 1, "time": 2}, "y": {"bytes": 3, "time": 4}},
        "b": {"x": {"bytes": 5, "time": 6}},
    }
    found, keys = stacked_moves(changes, costs, ("time", "bytes"))
    assert keys == (("a", "x"), ("a", "y"), ("b", "x"))
    assert found.layer.tolist() == [0, 0, 1]
    assert found.change[:, 0].tolist() == [0, 1, 2]
    assert found.cost.tolist() == [[2, 1], [4, 3], [6, 5]]
