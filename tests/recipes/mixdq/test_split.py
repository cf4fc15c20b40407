from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mezzotint.errors import BudgetError, UsageError
from mezzotint.recipes.mixdq.split import (
    ACTIVATION_DIVISIONS,
    WEIGHT_DIVISIONS,
    Divisions,
    Span,
    Split,
    splits,
)
from tests.fuzzing import examples

ONE_RATIO = Span(1.0, 1.0, 1)
TARGET_ONLY = Span(0.0, 0.0, 1)


def test_the_groups_share_the_average_by_size_and_ratio():
    divisions = Divisions(TARGET_ONLY, Span(0.5, 2.0, 2), first=(0, 16), second=(0, 16))
    assert splits(4.0, 3, divisions) == (
        Split(average=4.0, ratio=0.5, first=3.2, second=6.4),
        Split(average=4.0, ratio=2.0, first=float(Fraction(32, 7)), second=float(Fraction(16, 7))),
    )


@examples(15)
@given(st.floats(2, 8), st.floats(0.01, 100))
def test_the_sizes_weigh_the_two_averages_back_to_the_one(target, ratio):
    for divisions in (WEIGHT_DIVISIONS, ACTIVATION_DIVISIONS):
        for split in splits(target, ratio, divisions):
            whole = (ratio * split.first + split.second) / (1 + ratio)
            assert whole == pytest.approx(split.average, rel=1e-12)
            assert split.first == pytest.approx(split.ratio * split.second, rel=1e-12)


@examples(15)
@given(st.floats(2, 9), st.floats(0.01, 100))
def test_every_split_keeps_to_the_bounds(target, ratio):
    for split in splits(target, ratio, WEIGHT_DIVISIONS):
        assert 2 <= split.first <= 8
        assert 4 <= split.second <= 8
        assert split.average <= target


def test_averages_and_ratios_reach_both_ends_of_their_spans():
    found = splits(6.0, 1.2, ACTIVATION_DIVISIONS)
    assert {found[0].average, found[-1].average} == {5.7, 6.0}
    assert {split.ratio for split in found} >= {0.94, 1.09}
    assert len(found) == 200


@given(st.floats(0.001, 1000))
def test_a_split_that_just_meets_a_bound_survives(ratio):
    divisions = Divisions(TARGET_ONLY, ONE_RATIO, first=(4, 8), second=(4, 8))
    assert splits(8, ratio, divisions) == (Split(8.0, 1.0, 8.0, 8.0),)
    assert splits(4, ratio, divisions) == (Split(4.0, 1.0, 4.0, 4.0),)
    assert splits(8.000001, ratio, divisions) == ()


def test_a_bound_at_the_end_of_a_span_survives():
    divisions = Divisions(Span(-0.3, 0.0, 10), ONE_RATIO, first=(3.9, 9), second=(3.9, 9))
    assert splits(4.2, 2.2418, divisions)[0].average == 3.9


@pytest.mark.parametrize(
    ("divisions", "size_ratio", "target", "count"),
    [
        (WEIGHT_DIVISIONS, 2.2418, 3.66, 42),
        (WEIGHT_DIVISIONS, 2.2418, 4, 54),
        (WEIGHT_DIVISIONS, 2.2418, 5, 90),
        (WEIGHT_DIVISIONS, 2.2418, 8, 8),
        (ACTIVATION_DIVISIONS, 1.2062, 7.7, 200),
        (ACTIVATION_DIVISIONS, 1.2062, 8, 100),
    ],
    ids=["W3.66", "W4", "W5", "W8", "A7.7", "A8"],
)
def test_as_many_splits_as_published_for_sdxl(divisions, size_ratio, target, count):
    assert len(splits(target, size_ratio, divisions)) == count


class TestErrors:
    @pytest.mark.parametrize("target", [float("nan"), float("inf"), None])
    def test_a_target_that_is_no_finite_number(self, target):
        with pytest.raises(BudgetError, match="target: is"):
            splits(target, 1, WEIGHT_DIVISIONS)

    @pytest.mark.parametrize("ratio", [-1, float("nan")])
    def test_a_size_ratio_out_of_range(self, ratio):
        with pytest.raises(UsageError, match="size_ratio: is"):
            splits(4, ratio, WEIGHT_DIVISIONS)

    @pytest.mark.parametrize(
        ("low", "high", "count"), [(1, 0, 3), (0, 1, 1), (0, 0, 2), (0, 1, 0), (0, 0, 0)]
    )
    def test_a_span_that_is_none(self, low, high, count):
        with pytest.raises(UsageError, match=f"{count} numbers from {low} to {high}"):
            Span(low, high, count)

    def test_ratios_of_zero(self):
        with pytest.raises(UsageError, match="ratios: begin at 0"):
            Divisions(TARGET_ONLY, Span(0, 1, 2), first=(2, 8), second=(4, 8))

    @pytest.mark.parametrize("name", ["first", "second"])
    def test_swapped_bounds(self, name):
        bounds = {"first": (2, 8), "second": (4, 8)} | {name: (8, 2)}
        with pytest.raises(UsageError, match=f"{name}: the bounds 8 and 2 are swapped"):
            Divisions(TARGET_ONLY, ONE_RATIO, **bounds)
