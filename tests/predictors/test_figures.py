"""Figures of an order, and comparisons of two predictors over folds."""

import numpy as np
import pytest
from scipy import stats

from mezzotint.errors import UsageError
from mezzotint.predictors import Evidence, FoldFigures, averages, differences, judged
from mezzotint.predictors.figures import ndcg, partial_spearman, regret, spearman

RNG = np.random.default_rng(0)
BITS = RNG.uniform(3, 4, 60)
OTHER = RNG.standard_normal(60)
TARGETS = 5 * BITS + OTHER


def test_spearman_is_that_of_scipy():
    assert spearman(OTHER, TARGETS) == pytest.approx(stats.spearmanr(OTHER, TARGETS)[0])


def test_what_bits_explain_is_nothing_given_bits():
    assert spearman(BITS, TARGETS) > 0.8
    assert partial_spearman(BITS, TARGETS, BITS) == 0
    assert partial_spearman(3 * BITS**2, TARGETS, BITS) == 0


def test_what_bits_do_not_explain_is_seen_given_bits():
    assert partial_spearman(OTHER, TARGETS, BITS) > 0.8
    assert abs(partial_spearman(RNG.standard_normal(60), TARGETS, BITS)) < 0.4


def test_partial_correlation_is_that_of_the_textbook():
    a, b, c = (stats.spearmanr(*pair)[0] for pair in (
        (OTHER, TARGETS), (OTHER, BITS), (TARGETS, BITS)
    ))  # fmt: skip
    expected = (a - b * c) / np.sqrt((1 - b**2) * (1 - c**2))
    assert partial_spearman(OTHER, TARGETS, BITS) == pytest.approx(expected)


def test_constant_scores_order_nothing():
    assert spearman(np.ones(60), TARGETS) == 0
    assert partial_spearman(np.ones(60), TARGETS, BITS) == 0


def test_ndcg_looks_at_the_first_ten_places():
    targets = np.linspace(0, 50, 30)
    assert ndcg(targets, targets) == 1
    assert ndcg(-targets, targets) < 0.1
    behind = targets.copy()
    behind[:20] = behind[:20][::-1]
    assert ndcg(behind, targets) == 1
    front = targets.copy()
    front[[20, 29]] = front[[29, 20]]
    assert 0.5 < ndcg(front, targets) < 1


def test_ndcg_of_labels_without_a_grade_is_that_of_the_best_order():
    assert ndcg(RNG.random(5), np.zeros(5)) == 1


def test_ndcg_is_that_of_the_definition():
    targets, scores = np.array([50.0, 20.0, 0.0]), np.array([1.0, 3.0, 2.0])
    gains = 2 ** (targets / 10) - 1
    expected = (gains[1] + gains[0] / 2) / (gains[0] + gains[1] / np.log2(3))
    assert ndcg(scores, targets) == pytest.approx(expected)


def test_regret_is_lost_among_configurations_of_like_bits_only():
    bits = np.array([3.0, 3.01, 4.0, 4.02])
    targets = np.array([5.0, 7.0, 1.0, 2.0])
    assert regret(targets, targets, bits, 0.05) == 0
    # Within 3 bits the worse one is taken, and loses 2; within 4 bits the better one.
    assert regret(np.array([9.0, 0.0, 0.0, 1.0]), targets, bits, 0.05) == 1
    assert regret(-targets, targets, np.array([3.0, 3.2, 3.4, 3.6]), 0.05) == 0


def evidence(predicted):
    fold = np.arange(60) % 5
    return Evidence(np.zeros((60, 1), np.int64), TARGETS, predicted, BITS, fold)


def test_each_fold_is_judged_by_itself():
    # The same order within each fold, at levels that would confuse all folds together.
    shifted = evidence(TARGETS + 1000 * (np.arange(60) % 5))
    figures = judged(shifted)
    assert len(figures) == 5
    assert all(each == FoldFigures(1, 1, 1, 0) for each in figures)


def test_means_have_intervals_over_folds():
    found = averages(judged(evidence(OTHER)))
    assert set(found) == {"spearman", "partial", "ndcg", "regret"}
    assert found["partial"].low < found["partial"].value < found["partial"].high


def test_two_predictors_are_told_apart_fold_by_fold():
    bits, other = judged(evidence(BITS)), judged(evidence(OTHER + 0.1 * BITS))
    found = differences(other, bits)
    assert found["partial"].low > 0.3
    assert differences(bits, bits)["spearman"].value == 0


def test_other_folds_are_no_pairs():
    figures = judged(evidence(OTHER))
    with pytest.raises(UsageError, match="figures of 5 and 4 folds are no pairs"):
        differences(figures, figures[:4])
