"""Predictors without a graph: sums, ridge regressions, trees."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from mezzotint.errors import PredictorError, UsageError
from mezzotint.predictors import (
    FoldModel,
    Predictor,
    PredictorOptions,
    averages,
    judged,
    predictor_named,
    predictors,
    register_predictor,
)
from mezzotint.predictors import predictor as module
from mezzotint.predictors.dataset import chosen
from mezzotint.predictors.monotone_fit import MonotoneFit
from mezzotint.predictors.ridge import one_hot, ridge
from tests.predictors.planted import dataset_of, transformer, with_values

GRAPH, BLOCKS = transformer(2)
DATASET = dataset_of(GRAPH, 150, noise=0.02)
NAMES = ("bits", "error", "noise", "ridge-choices", "ridge-noises", "trees")


@cache
def fitted(name, dataset=DATASET, **options):
    return predictor_named(name).fit(dataset, BLOCKS, PredictorOptions(**options))


def figures(found):
    return {name: each.value for name, each in averages(judged(found.evidence)).items()}


def test_each_name_is_registered():
    assert {*NAMES, "network", "residual"} <= {each.kind for each in predictors()}


def test_an_unknown_name_lists_those_that_there_are():
    with pytest.raises(UsageError, match="unknown predictor 'tree'; there are: bits, error"):
        predictor_named("tree")


@pytest.mark.parametrize("name", NAMES)
def test_unseen_labels_are_ordered(name):
    assert figures(fitted(name))["spearman"] > 0.6


@pytest.mark.parametrize("name", ["noise", "ridge-choices", "ridge-noises", "trees"])
def test_more_than_bits_is_known(name):
    assert figures(fitted(name))["partial"] > 0.4


def test_bits_know_no_more_than_bits():
    assert figures(fitted("bits"))["partial"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_predictions_are_means_over_folds_in_the_units_of_the_target(name):
    found = fitted(name)
    mean, spread = found.predict(DATASET.configurations)
    assert mean.shape == spread.shape == (150,)
    targets = -DATASET.values
    best = targets > np.quantile(targets, 0.3)  # below, all are the same to a predictor
    assert np.abs(mean - targets)[best].mean() < 0.7 * targets[best].std()
    assert spread.max() > 0


@pytest.mark.parametrize("name", NAMES)
def test_a_label_does_not_predict_itself(name):
    found = fitted(name)
    values = DATASET.values.copy()
    # The best one of its fold: a change of the worst ones is none to a predictor.
    values[np.where(found.evidence.fold == 2, values, np.inf).argmin()] *= 2
    again = fitted(name, with_values(DATASET, values))
    same = found.evidence.fold == 2
    np.testing.assert_array_equal(again.evidence.predicted[same], found.evidence.predicted[same])
    assert not np.array_equal(again.evidence.predicted[~same], found.evidence.predicted[~same])


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_decides_every_bit(name):
    one, two = fitted(name), fitted.__wrapped__(name)
    np.testing.assert_array_equal(one.evidence.predicted, two.evidence.predicted)
    other = fitted.__wrapped__(name, seed=1)
    assert not np.array_equal(one.evidence.predicted, other.evidence.predicted)


def test_the_noise_of_single_layers_needs_no_labels_for_its_order():
    found = fitted("noise", with_values(DATASET, DATASET.values[::-1].copy()))
    sums = chosen(DATASET.noises, DATASET.configurations).sum(1)
    assert np.array_equal(found.predict(DATASET.configurations).mean.argsort(), (-sums).argsort())


@pytest.mark.parametrize("name", ["noise", "ridge-noises", "residual"])
def test_a_dataset_without_noises_is_refused_by_name(name):
    with pytest.raises(PredictorError, match=f"predictor '{name}': reads the noise of every"):
        fitted(name, replace(DATASET, noises=None))


def test_the_target_may_punish_bits():
    light = fitted("ridge-choices", target="-metric - 150*bits")
    mean = light.predict(DATASET.configurations).mean
    assert np.corrcoef(mean, DATASET.bits)[0, 1] < -0.9


def test_reversed_the_worst_are_predicted_best():
    mean = fitted("ridge-choices", reverse=True).predict(DATASET.configurations).mean
    assert np.corrcoef(mean, DATASET.values)[0, 1] > 0.6


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.zeros((1, 3), int), r"expected integers \[any number, 14 weight nodes\]"),
        (np.full((1, 14), 6), "the format 6"),
        (np.zeros((1, 14)), "float64"),
    ],
)
def test_other_configurations_are_refused(rows, message):
    with pytest.raises(PredictorError, match=message):
        fitted("bits").predict(rows)


def test_no_configurations_have_no_predictions():
    assert fitted("bits").predict(np.zeros((0, 14), int)).mean.shape == (0,)


def test_few_labels_are_counted():
    few = replace(DATASET, configurations=DATASET.configurations[:12], values=DATASET.values[:12])
    with pytest.raises(PredictorError, match=r"12 different .* 8 are missing"):
        fitted("bits", few)


def test_labels_that_differ_in_the_test_part_alone_teach_nothing():
    values = np.ones(150)
    row = np.flatnonzero(fitted("bits").evidence.fold == 0)[0]
    values[row] = 2
    with pytest.raises(PredictorError, match="all 120 labels to learn from have the same target"):
        fitted("bits", with_values(DATASET, values))


def test_a_curve_falls_with_sums_whatever_the_targets():
    sums = np.linspace(0, 5, 50)
    for targets in (-sums, sums, -np.log(sums + 0.1), np.ones(50)):
        found = MonotoneFit.fit(sums, targets + 0.01 * np.sin(9 * sums)).predict(sums)
        assert (np.diff(found) < 0).all()


def test_a_curve_finds_a_logarithm():
    sums = np.linspace(0.5, 5, 50)
    found = MonotoneFit.fit(sums, 3 - 2 * np.log(sums)).predict(sums)
    np.testing.assert_allclose(found, 3 - 2 * np.log(sums), atol=0.05)


def test_ridge_finds_a_linear_truth_beyond_its_labels():
    generator = np.random.default_rng(0)
    inputs, slopes = generator.standard_normal((60, 20)), generator.standard_normal(20)
    found, level = ridge(inputs, inputs @ slopes + 7)
    np.testing.assert_allclose(found, slopes, atol=0.01)
    assert level == pytest.approx(7, abs=0.01)


def test_ridge_takes_the_mean_where_inputs_tell_nothing():
    generator = np.random.default_rng(0)
    found, level = ridge(generator.standard_normal((40, 80)), generator.standard_normal(40) + 7)
    assert np.linalg.norm(found) < 0.3
    assert level == pytest.approx(7, abs=0.5)


def test_choices_are_one_hot():
    assert one_hot(np.array([[2, 0]]), 3).tolist() == [[0, 0, 1, 1, 0, 0]]


def test_a_predictor_of_ones_own_is_known_by_its_name(monkeypatch):
    monkeypatch.setattr(module._PREDICTORS, "items", dict(module._PREDICTORS.items))

    class Best(FoldModel):
        def predict(self, configurations):
            return np.zeros(len(configurations))

    @register_predictor("own")
    class Own(Predictor):
        @classmethod
        def fit_fold(cls, task):
            return Best()

    assert predictor_named("own") is Own
    assert figures(fitted("own"))["spearman"] == 0
