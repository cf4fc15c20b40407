from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mezzotint.allocation import allocate
from mezzotint.errors import BudgetError, InfeasibleBudgetError, UsageError
from tests.allocation.problems import sdxl_shaped
from tests.fuzzing import examples


def average(bits, sizes):
    return Fraction(sum(bits[name] * sizes[name] for name in bits), sum(sizes.values()))


SCORES = {name: {2: 0.0, 4: 2.0, 8: 3.0} for name in ("small", "large")}
SIZES = {"small": 100, "large": 300}


def test_spends_at_most_the_average():
    assert allocate(SCORES, SIZES, average_bits=4) == {"small": 4, "large": 4}
    assert allocate(SCORES, SIZES, average_bits=8) == {"small": 8, "large": 8}
    assert allocate(SCORES, SIZES, average_bits=3.9) == {"small": 8, "large": 2}


def test_prefers_the_layer_that_scores_more_for_its_size():
    scores = {"a": {2: 0.0, 8: 1.0}, "b": {2: 0.0, 8: 3.0}}
    assert allocate(scores, {"a": 1, "b": 1}, average_bits=5) == {"a": 2, "b": 8}


def test_spends_at_least_the_window_even_if_less_would_score_more():
    scores = {"a": {2: 1.0, 4: 0.0}, "b": {2: 1.0, 4: 0.5}}
    sizes = {"a": 1, "b": 1}
    assert allocate(scores, sizes, average_bits=3) == {"a": 2, "b": 2}
    assert allocate(scores, sizes, average_bits=3, tolerance=0.5) == {"a": 2, "b": 4}


@pytest.mark.parametrize("width", [3, 4, 0.5, 1e-9, 1e10])
def test_an_average_that_is_exactly_uniform_is_met(width):
    scores = {str(i): {3: 0.0, 4: 1.0} for i in range(7)}
    sizes = {str(i): width for i in range(7)}
    assert set(allocate(scores, sizes, average_bits=4).values()) == {4}


def test_an_average_is_the_decimal_it_prints_as():
    scores = {str(i): {3: 0.0, 4: 1.0} for i in range(10)}
    bits = allocate(scores, dict.fromkeys(scores, 1), average_bits=3.3)
    assert sum(bits.values()) == 33


@examples(15)
@given(st.floats(2, 8), st.integers(0, 3))
def test_the_average_of_a_large_model_is_kept_exactly_and_nearly_spent(bits, seed):
    scores, sizes = sdxl_shaped(seed)
    found = average(allocate(scores, sizes, average_bits=bits), sizes)
    assert found <= Fraction(repr(bits))
    assert found >= bits - 0.05


@pytest.mark.parametrize("bits", [2.5, 3, 4, 6])
def test_the_window_of_a_large_model_is_kept_exactly(bits):
    scores, sizes = sdxl_shaped()
    found = average(allocate(scores, sizes, average_bits=bits, tolerance=0.001), sizes)
    assert abs(found - Fraction(repr(float(bits)))) <= Fraction("0.001")


def test_layers_come_in_the_order_of_the_scores():
    assert list(allocate(SCORES, dict(reversed(SIZES.items())), average_bits=4)) == list(SCORES)


def test_numbers_of_numpy_are_numbers():
    scores = {"a": {np.int64(2): np.float32(0), np.int64(8): np.float32(1)}}
    assert allocate(scores, {"a": np.int64(5)}, average_bits=np.float32(8)) == {"a": 8}


class TestErrors:
    def test_an_average_below_all_bits_names_the_nearest(self):
        with pytest.raises(InfeasibleBudgetError) as caught:
            allocate(SCORES, SIZES, average_bits=1.5)
        assert str(caught.value) == (
            "average bits: at most 1.5 asked, but the layers can use only 2.0 to 8.0; "
            "the nearest feasible is 2.0"
        )

    def test_a_window_no_choice_meets_names_the_nearest(self):
        with pytest.raises(InfeasibleBudgetError, match=r"nearest feasible is 3\.5"):
            allocate(SCORES, SIZES, average_bits=3.4, tolerance=0.05)

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), None, "4"])
    def test_an_average_that_is_no_finite_number(self, value):
        with pytest.raises(BudgetError, match=r"average_bits: is .*; give a finite number"):
            allocate(SCORES, SIZES, average_bits=value)

    @pytest.mark.parametrize("value", [-0.1, float("nan")])
    def test_a_tolerance_that_is_none(self, value):
        with pytest.raises(BudgetError, match="tolerance: is"):
            allocate(SCORES, SIZES, average_bits=4, tolerance=value)

    @pytest.mark.parametrize(
        ("scores", "sizes", "message"),
        [
            ({}, {}, "the problem has no layers"),
            ({"a": {}}, {"a": 1}, "layer 'a': has no options"),
            ({"a": {4: 1.0}}, {}, "layer 'a': has scores but no size"),
            ({"a": {4: 1.0}}, {"a": 1, "b": 1}, "layer 'b': has a size but no scores"),
            ({"a": {4: 1.0}}, {"a": -1}, "layer 'a': its size -1 is negative"),
            ({"a": {4: 1.0}}, {"a": float("nan")}, "layer 'a', size: is nan"),
            ({"a": {4: 1.0}}, {"a": 0}, "sizes: all are zero"),
            ({"a": {4: float("nan")}}, {"a": 1}, "layer 'a', score at 4 bits: is nan"),
            ({"a": {4.5: 1.0}}, {"a": 1}, "layer 'a': .* are not all whole bits"),
            ({"a": {-4: 1.0}}, {"a": 1}, "layer 'a': .* are not all bits, zero or more"),
        ],
    )
    def test_bad_scores_and_sizes_are_named(self, scores, sizes, message):
        with pytest.raises(UsageError, match=message):
            allocate(scores, sizes, average_bits=4)
