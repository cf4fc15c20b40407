"""Ratios of interleaved times."""

import pytest

from benchmarks.contestants.timing import speedup, summary


def test_the_speedup_is_the_ratio_of_medians():
    found = speedup([4.0, 4.0, 40.0], [2.0, 1.0, 20.0])
    assert found["ratio"] == 2.0


def test_its_span_is_that_of_the_rounds():
    found = speedup([4.0, 4.0, 40.0], [2.0, 1.0, 20.0])
    assert (found["low"], found["high"]) == (2.0, 4.0)


def test_a_missing_round_is_refused():
    with pytest.raises(ValueError, match="shorter"):
        speedup([1.0, 1.0], [1.0])


def test_a_summary_has_the_median_and_the_extremes():
    assert summary([3.0, 1.0, 2.0]) == {"median": 2.0, "low": 1.0, "high": 3.0}
