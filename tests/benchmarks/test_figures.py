"""Differences of two contestants, with intervals."""

import numpy as np
import pytest

from benchmarks.contestants.figures import jackknife, sqnr_difference


def test_the_jackknife_of_a_mean_is_its_t_interval():
    values = np.random.default_rng(0).normal(3, 1, 1000)
    found = jackknife(lambda rows: float(values[rows].mean()), 1000, groups=1000)
    reach = 1.96 * values.std(ddof=1) / np.sqrt(1000)
    assert found["value"] == pytest.approx(values.mean())
    assert found["high"] - found["value"] == pytest.approx(reach, rel=0.01)


def test_half_the_noise_is_three_decibels_more():
    noise = np.random.default_rng(0).uniform(0.1, 0.2, 64)
    found = sqnr_difference(noise / 2, noise)
    assert found["value"] == pytest.approx(3.01, abs=0.01)
    assert found["low"] == pytest.approx(found["high"])


def test_equal_noise_is_no_difference():
    rng = np.random.default_rng(0)
    found = sqnr_difference(rng.uniform(0.1, 0.2, 256), rng.uniform(0.1, 0.2, 256))
    assert found["low"] < 0 < found["high"]
