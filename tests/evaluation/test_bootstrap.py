import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mezzotint.errors import UsageError
from mezzotint.evaluation import bootstrap_interval, paired_difference_interval

samples = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30)


@given(samples)
def test_the_interval_holds_the_value(values: list[float]):
    interval = bootstrap_interval(values, resamples=200)
    slack = 1e-9 * max(map(abs, values))  # of summing in another order
    assert interval.low - slack <= interval.value <= interval.high + slack
    assert min(values) - slack <= interval.low
    assert interval.high <= max(values) + slack


def test_the_same_seed_gives_the_same_interval():
    values = np.random.default_rng(0).normal(size=20)
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)


def test_a_higher_level_is_a_wider_interval():
    values = np.random.default_rng(0).normal(size=20)
    narrow, wide = (bootstrap_interval(values, level=level) for level in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize("count", [8, 200])
def test_the_interval_of_a_mean_is_as_wide_as_students(count: int):
    values = np.random.default_rng(1).normal(size=count)
    interval = bootstrap_interval(values, resamples=4000)
    low, high = stats.t.interval(0.95, count - 1, values.mean(), stats.sem(values))
    assert interval.high - interval.low == pytest.approx(high - low, rel=0.12)


def test_other_statistics_have_intervals_too():
    interval = bootstrap_interval([1.0, 2.0, 3.0, 4.0, 100.0], np.median)
    assert interval.value == 3.0
    assert interval.low >= 1.0


def test_equal_values_leave_no_doubt():
    interval = bootstrap_interval([2.5] * 9)
    assert (interval.low, interval.value, interval.high) == (2.5, 2.5, 2.5)


def test_one_value_has_no_interval():
    interval = bootstrap_interval([7.0])
    assert interval.value == 7.0
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)


def test_a_paired_difference_is_surer_than_two_intervals():
    rng = np.random.default_rng(0)
    difficulty = rng.normal(0, 10, 50)
    a, b = difficulty + 1 + rng.normal(0, 0.1, 50), difficulty + rng.normal(0, 0.1, 50)
    difference = paired_difference_interval(a, b)
    assert 0.9 < difference.low < 1 < difference.high < 1.1
    assert bootstrap_interval(a).low < bootstrap_interval(b).high


def test_a_paired_difference_takes_pairs():
    with pytest.raises(UsageError, match=r"\[3\] and \[2\]"):
        paired_difference_interval([1, 2, 3], [1, 2])


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ([], {}, "at least one"),
        ([[1.0, 2.0]], {}, "vector"),
        ([1.0, math.nan], {}, "NaN"),
        ([1.0, math.inf], {}, "infinite"),
        ([1.0, 2.0], {"level": 1.0}, "level"),
        ([1.0, 2.0], {"resamples": 0}, "resamples"),
    ],
    ids=["none", "matrix", "nan", "infinite", "level", "resamples"],
)
def test_what_has_no_interval_is_refused(values, options, message: str):
    with pytest.raises(UsageError, match=message):
        bootstrap_interval(values, **options)
