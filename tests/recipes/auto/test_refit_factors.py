"""Factors between a fine-tune's noises and its base's, from a few probes."""

from __future__ import annotations

import numpy as np
import pytest

from mezzotint.recipes.auto.refit_factors import factors_of


def probes(factors: dict[str, float], count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Squares of normal projections, whose mean is the factor."""
    generator = np.random.default_rng(seed)
    return {name: f * generator.standard_normal(count) ** 2 for name, f in factors.items()}


def test_layers_that_differ_by_chance_alone_are_drawn_to_one_factor():
    told = probes({f"layer {n}": 3.0 for n in range(60)}, 8)
    found = factors_of(told)
    assert found.typical == pytest.approx(3.0, rel=0.3)
    raw = [np.log(each.mean()) for each in told.values()]
    assert np.std(np.log(list(found.by_layer.values()))) < 0.3 * np.std(raw)


def test_layers_that_truly_differ_keep_apart():
    true = {f"layer {n}": 10.0 ** (n % 3 - 1) for n in range(60)}
    found = factors_of(probes(true, 40))
    errors = [abs(np.log10(found.of(name) / each)) for name, each in true.items()]
    assert np.mean(errors) < 0.15


def test_drawn_factors_are_nearer_the_truth_than_the_means_of_few_probes():
    generator = np.random.default_rng(1)
    true = {f"layer {n}": float(generator.lognormal(sigma=0.2)) for n in range(80)}
    told = probes(true, 8, seed=2)
    found = factors_of(told)
    drawn = [np.log(found.of(name) / each) for name, each in true.items()]
    raw = [np.log(told[name].mean() / each) for name, each in true.items()]
    assert np.mean(np.square(drawn)) < 0.5 * np.mean(np.square(raw))


def test_a_layer_without_probes_has_the_typical_factor():
    found = factors_of(probes({"a": 2.0, "b": 2.0}, 200))
    assert found.of("c") == found.typical == pytest.approx(2.0, rel=0.3)


@pytest.mark.parametrize("told", [{}, {"a": np.zeros(4)}], ids=["none", "of zeros"])
def test_where_nothing_is_told_the_base_is_taken_as_it_is(told):
    assert factors_of(told).of("a") == 1.0
