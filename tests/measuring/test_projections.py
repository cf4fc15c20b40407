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


def test_of_one_change_the_selection_is_that_change(found: Projections):
    assert found.noise_of({"a": ("int4", None)}) == found.noise_of_weight("a", "int4")
    assert found.noise_of({"a": (None, "int8/token")}) == found.noise_of_input("a", "int8/token")
    assert found.noise_of({"a": (None, None)}) == 0
    assert found.noise_of({}) == 0


def test_opposite_changes_cancel(found: Projections):
    opposite = {**found.weights, "b": {"int4": -found.weights["a"]["int4"]}}
    both = Projections(found.energy, found.residual, opposite, found.inputs)
    assert both.noise_of({"a": ("int4", None), "b": ("int4", None)}) == 0


def test_what_undoes_the_residual_has_negative_noise(found: Projections):
    raw = found.weights["a"]["int4"]
    around = Projections(found.energy, -raw, found.weights, found.inputs)
    assert around.noise_of_weight("a", "int4") == pytest.approx(-around.base_noise)


def test_a_small_change_beside_a_large_residual_is_not_lost(found: Projections):
    tiny = {"a": {"int4": np.full(16, 1e-12)}}
    around = Projections(np.ones(16), np.full(16, 1e3), tiny, {})
    assert around.noise_of_weight("a", "int4") == pytest.approx(2e-9, rel=1e-6)


def test_a_resample_takes_probes_as_a_whole(found: Projections):
    drawn = found.resampled(np.random.default_rng(1))
    places = [int(np.flatnonzero(found.energy == energy)[0]) for energy in drawn.energy]
    assert len(drawn) == 16
    assert len(set(places)) < 16
    assert np.array_equal(drawn.weights["b"]["int4"], found.weights["b"]["int4"][places])
    assert np.array_equal(drawn.inputs["a"]["int8/token"], found.inputs["a"]["int8/token"][places])


def test_the_generator_decides_over_a_resample(found: Projections):
    one, same, other = (found.resampled(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one.energy, same.energy)
    assert not np.array_equal(one.energy, other.energy)
