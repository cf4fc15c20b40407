"""Budgets as the method's whole widths."""

import pytest

from mezzotint.errors import UsageError
from mezzotint.plan import Budget
from mezzotint.recipes import MPQDM
from mezzotint.recipes.mpqdm.widths import Widths, nominal_widths


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (Budget(weight_bits=2, act_bits=4), Widths(2, 4)),
        (Budget(weight_bits=3.0, act_bits=6.0), Widths(3, 6)),
        (Budget(weight_bits=4, act_bits=16), Widths(4, None)),
    ],
    ids=["W2A4", "W3A6", "W4"],
)
def test_a_budget_names_nominal_widths(budget: Budget, expected: Widths):
    assert nominal_widths(budget, MPQDM()) == expected


@pytest.mark.parametrize(
    ("bits", "options", "expected"),
    [(4, MPQDM(), "uint4/step"), (6, MPQDM(inputs="tensor"), "uint6/tensor"),
     (8, MPQDM(inputs="token"), "uint8/token"), (16, MPQDM(), "float")],
    ids=["step", "tensor", "token", "none"],
)  # fmt: skip
def test_inputs_have_the_granularity_asked_for(bits: int, options: MPQDM, expected: str):
    widths = nominal_widths(Budget(weight_bits=2, act_bits=bits), options)
    assert widths.input_format(options) == expected


@pytest.mark.parametrize(
    ("budget", "options", "named"),
    [
        (Budget(weight_bits=1), MPQDM(), "weight_bits: is 1.*channels none"),
        (Budget(weight_bits=8), MPQDM(), "weight_bits: is 8; give 7"),
        (Budget(weight_bits=9), MPQDM(channels="none"), "weight_bits: is 9; give 8"),
        (Budget(weight_bits=2.5), MPQDM(), "weight_bits: is 2.5"),
        (Budget(weight_bits=2, act_bits=4.5), MPQDM(), "act_bits: is 4.5"),
    ],
    ids=["no bit to take", "no bit to give", "too wide", "part of a weight's bit",
         "part of an input's bit"],
)  # fmt: skip
def test_what_the_method_has_no_width_for_is_refused(budget: Budget, options: MPQDM, named: str):
    with pytest.raises(UsageError, match=named):
        nominal_widths(budget, options)


def test_one_bit_for_all_channels_is_a_width():
    assert nominal_widths(Budget(weight_bits=1), MPQDM(channels="none")).weight == 1


def test_inputs_below_two_bits_are_no_budget():
    with pytest.raises(UsageError, match="act_bits is 1"):
        Budget(weight_bits=2, act_bits=1)
