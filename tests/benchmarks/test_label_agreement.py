"""Agreement of one metric's labels, or another model's, with labels; and the tables of that."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.contestants.label_agreement import (
    agreement,
    common,
    markdown,
    of_bits,
    of_metrics,
    shown,
)
from benchmarks.contestants.transfer_rows import transferred
from mezzotint.errors import LabelError
from mezzotint.predictors import PredictorOptions
from tests.recipes.planted_model import planted_model


def labels_of(values, seed=0, order=None):
    """Labels as far as an order looks at them; half the label is the bits of the configuration."""
    generator = np.random.default_rng(seed)
    configurations = np.unique(generator.integers(0, 2, (len(values), 12)), axis=0)
    order = np.arange(len(configurations)) if order is None else order
    return SimpleNamespace(
        keys=tuple("abcdefghijkl"),
        formats=("uint3/channel", "uint4/channel"),
        configurations=configurations[order],
        values=np.asarray(values)[: len(configurations)][order],
        bits=3 + configurations[order].mean(1),
    )


VALUES = np.random.default_rng(1).normal(size=40)


def test_the_same_order_is_1_and_the_other_way_round_minus_1():
    bits = np.random.default_rng(2).normal(size=40)
    for sign in (1.0, -1.0):
        found = agreement(sign * np.exp(VALUES), VALUES, bits)
        assert found["spearman"] == {"value": sign, "low": sign, "high": sign}
        assert found["partial"]["value"] == pytest.approx(sign)


def test_the_interval_is_that_of_so_many_configurations():
    noisy = VALUES + np.random.default_rng(3).normal(size=40)
    found, fewer = (agreement(noisy[:n], VALUES[:n], np.arange(n)) for n in (40, 10))
    assert found["spearman"]["low"] < found["spearman"]["value"] < found["spearman"]["high"]
    widths = [one["spearman"]["high"] - one["spearman"]["low"] for one in (found, fewer)]
    assert widths[0] < widths[1]


def test_an_order_by_bits_has_nothing_left_given_bits():
    found = of_bits(labels_of(VALUES))
    assert found["partial"]["value"] == pytest.approx(0, abs=1e-9)
    assert -1 < found["spearman"]["value"] < 1


def test_labels_are_compared_configuration_by_configuration():
    """They may stand in any order, and one may lack some."""
    first = labels_of(VALUES)
    order = np.random.default_rng(4).permutation(len(first.values))[3:]
    second = labels_of(np.exp(VALUES), order=order)
    found = of_metrics(first, second)
    assert found["configurations"] == len(order)
    assert found["spearman"]["value"] == pytest.approx(1)


def test_labels_of_other_weights_or_too_few_are_refused():
    first = labels_of(VALUES)
    other = labels_of(VALUES)
    other.keys = tuple("lkjihgfedcba")
    with pytest.raises(LabelError, match="other weights or formats"):
        common(first, other)
    with pytest.raises(LabelError, match="3 configurations in common"):
        common(first, labels_of(VALUES, order=np.arange(3)))


def test_effects_of_one_model_order_the_labels_of_another():
    models = [planted_model(blocks) for blocks in (1, 3)]
    options = PredictorOptions()
    found = transferred(*models, "ridge-choices", options)
    assert found["configurations"] == len(models[1].dataset.values)
    assert found["spearman"]["low"] > 0.3
    shuffled = np.random.default_rng(0).permutation(models[0].dataset.values)
    unlike = replace(models[0], dataset=replace(models[0].dataset, values=shuffled))
    assert transferred(unlike, models[1], "ridge-choices", options)["spearman"]["value"] < (
        found["spearman"]["value"] - 0.2
    )


def test_a_table_shows_both_correlations_with_their_intervals():
    row = {"cells": ["emoji-dit", "noise"], **of_metrics(labels_of(VALUES), labels_of(VALUES))}
    lines = markdown([row], ("model", "ordered by"), ["A note."]).splitlines()
    assert lines[2].startswith("| emoji-dit | noise | ")
    assert shown(row["spearman"]) == "1.000 [1.000, 1.000]"
    assert shown(row["partial"]) in lines[2]
    assert lines[-1] == "A note."
