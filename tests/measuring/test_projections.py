"""Noise predicted from raw projections."""

import numpy as np
import pytest

from mezzotint.measuring import Projections


@pytest.fixture
def found() -> Projections:
    rng = np.random.default_rng(0)
    energy = rng.uniform(1, 2, 16)
    weights = {"a": {"int4": rng.normal(size=16)}, "b": {"int4": rng.normal(size=16)}}
    return Projections(energy, np.zeros(16), weights, {"a": {"int8/token": rng.normal(size=16)}})


def test_noise_is_the_mean_square_over_the_energy(found: Projections):
    raw = found.weights["a"]["int4"]
    assert found.noise_of_weight("a", "int4") == pytest.approx(np.mean(raw**2 / found.energy))
    raw = found.inputs["a"]["int8/token"]
    assert found.noise_of_input("a", "int8/token") == pytest.approx(np.mean(raw**2 / found.energy))


def test_what_undoes_the_residual_has_negative_noise(found: Projections):
    raw = found.weights["a"]["int4"]
    around = Projections(found.energy, -raw, found.weights, found.inputs)
    assert around.noise_of_weight("a", "int4") == pytest.approx(-np.mean(raw**2 / found.energy))


def test_a_small_change_beside_a_large_residual_is_not_lost(found: Projections):
    tiny = {"a": {"int4": np.full(16, 1e-12)}}
    around = Projections(np.ones(16), np.full(16, 1e3), tiny, {})
    assert around.noise_of_weight("a", "int4") == pytest.approx(2e-9, rel=1e-6)
