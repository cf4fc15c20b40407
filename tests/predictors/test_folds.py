"""Folds: every label is tested once, by a model that saw no equal configuration."""

import numpy as np
import pytest

from mezzotint.errors import PredictorError
from mezzotint.predictors import folds_of

ROWS = np.random.default_rng(0).integers(0, 6, (60, 5))


def test_each_label_is_tested_once_and_each_fold_has_three_parts():
    folds = folds_of(ROWS, 5, 0)
    assert sorted(np.concatenate([fold.test for fold in folds])) == list(range(60))
    for fold in folds:
        parts = [fold.train, fold.validation, fold.test]
        assert sorted(np.concatenate(parts)) == list(range(60))
        assert min(map(len, parts)) >= 2
        assert sorted(fold.known) == sorted([*fold.train, *fold.validation])


def test_no_two_folds_share_a_validation_part():
    parts = [set(fold.validation) for fold in folds_of(ROWS, 5, 0)]
    assert len(set.union(*parts)) == sum(map(len, parts))


def test_equal_configurations_fall_into_one_part():
    doubled = np.concatenate([ROWS, ROWS[:20]])
    for fold in folds_of(doubled, 5, 0):
        for part in (fold.train, fold.validation, fold.test):
            for row in range(20):
                assert (row in part) == (60 + row in part)


def test_a_seed_decides_the_division():
    same, other = folds_of(ROWS, 5, 0), folds_of(ROWS, 5, 1)
    np.testing.assert_array_equal(same[0].test, folds_of(ROWS, 5, 0)[0].test)
    assert set(same[0].test) != set(other[0].test)


@pytest.mark.parametrize(("count", "missing"), [(0, 20), (1, 19), (19, 1)])
def test_too_few_configurations_are_counted(count, missing):
    with pytest.raises(PredictorError, match=rf"^labels: {count} .* {missing} are missing$"):
        folds_of(ROWS[:count], 5, 0)


def test_repeated_configurations_do_not_count():
    with pytest.raises(PredictorError, match="1 different configurations are too few"):
        folds_of(np.repeat(ROWS[:1], 60, 0), 5, 0)
