"""Targets: expressions that are read and never run, and their scale."""

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mezzotint.errors import PredictorError, UsageError
from mezzotint.predictors import Scale, Target
from tests.predictors.planted import dataset_of, transformer, with_values

DATASET = dataset_of(transformer(1)[0], 30)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-metric", lambda m, b: -m),
        ("-metric - 150*bits", lambda m, b: -m - 150 * b),
        ("-log(metric) / (2.5 + bits)", lambda m, b: -np.log(m) / (2.5 + b)),
        ("+sqrt(metric)*1e3", lambda m, b: np.sqrt(m) * 1000),
    ],
)
def test_an_expression_is_computed_for_every_label(text, expected):
    found = Target.parse(text).of(DATASET)
    np.testing.assert_allclose(found, expected(DATASET.values, DATASET.bits))


def test_reversed_the_worst_is_best():
    target = Target.parse("-metric")
    np.testing.assert_array_equal(target.of(DATASET, reverse=True), -target.of(DATASET))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("-fid", "unknown name 'fid'; there are: metric, bits"),
        ("-bits", "does not name the metric"),
        ("metric +", "is no expression"),
        ("", "is no expression"),
        ("__import__('os').system('true') + metric", "is not understood"),
        ("metric.real", "is not understood"),
        ("metric if bits else 0", "is not understood"),
        ("metric ** 2", "is not understood"),
        ("exp(metric)", "is not understood"),
        ("log(metric, 2)", "is not understood"),
        ("metric * True", "is not understood"),
        ("metric * 'a'", "is not understood"),
        ("metric * 1e999", "too large a number"),
        ("metric * " + "9" * 150, None),
        ("metric + " + "1 + " * 60 + "1", "has .* characters; give 200 at most"),
    ],
)
def test_whatever_else_is_refused(text, message):
    if message is None:
        assert np.isfinite(Target.parse(text).of(DATASET)).all()
        return
    with pytest.raises(UsageError, match=message):
        Target.parse(text)


@given(st.text("metricbs()+-*/ .0189log,[]_:=\"'\\\n", max_size=40))
def test_any_text_is_read_or_refused(text):
    try:
        target = Target.parse(text)
    except UsageError:
        return
    with suppress(PredictorError):  # infinite, or the same for all
        assert target.of(DATASET).shape == DATASET.values.shape


def test_a_target_that_is_not_finite_names_the_label():
    values = DATASET.values.copy()
    values[3] = 0
    with pytest.raises(PredictorError, match=r"is inf for label 3, whose metric is 0\.0"):
        Target.parse("-log(metric)").of(with_values(DATASET, values))


def test_constant_labels_are_refused():
    with pytest.raises(PredictorError, match="all 30 labels have the same"):
        Target.parse("-metric").of(with_values(DATASET, np.ones(30)))


def test_the_worst_fifth_is_at_0_and_the_best_at_50():
    targets = np.random.default_rng(0).permutation(np.linspace(-3, 7, 101))
    scaled = Scale.fit(targets).scaled(targets)
    assert (scaled[targets <= -1] == 0).all()
    assert (scaled[targets > -1] > 0).all()
    assert scaled.max() == scaled[targets.argmax()] == 50
    assert (np.diff(scaled[targets.argsort()]) >= 0).all()


def test_the_scale_gives_targets_back():
    scale = Scale.fit(np.array([0.0, 1.0, 2.0, 3.0, 9.0]))
    targets = np.array([2.0, 8.0, 12.0])
    np.testing.assert_allclose(scale.restored(scale.scaled(targets)), targets)


def test_where_most_are_the_best_the_others_are_still_told_apart():
    scale = Scale.fit(np.array([1.0] + [2.0] * 9))
    np.testing.assert_array_equal(scale.scaled(np.array([1.0, 2.0])), [0, 50])
