import pytest

from mezzotint.allocation import BitProgram
from mezzotint.errors import InfeasibleBudgetError, UsageError
from tests.allocation.problems import sdxl_groups

SCORES = {"a": {2: 0.0, 4: 2.0, 8: 3.0}, "b": {2: 0.0, 4: 1.0, 8: 4.0}}
SIZES = {"a": 1.0, "b": 3.0}


def test_an_allocation_says_what_it_amounts_to():
    found = BitProgram(SCORES, SIZES).allocate(7)
    assert found.bits == {"a": 4, "b": 8}
    assert (found.average, found.objective, found.gap) == (7.0, 6.0, 0.0)


def test_stored_bits_count_instead_of_the_nominal_ones():
    nominal = BitProgram({"a": {4: 0.0, 8: 1.0}}, {"a": 1})
    stored = BitProgram(nominal.scores, nominal.sizes, {"a": {4: 4.25, 8: 8.25}})
    assert nominal.allocate(8).bits == {"a": 8}
    assert stored.allocate(8).bits == {"a": 4}
    assert stored.allocate(8).average == 4.25
    with pytest.raises(InfeasibleBudgetError, match=r"nearest feasible is 4\.25"):
        stored.allocate(4)


def test_the_average_is_weighted_by_size():
    assert BitProgram(SCORES, SIZES).average({"a": 8, "b": 4}) == 5.0


def test_the_average_of_other_layers_is_refused():
    with pytest.raises(UsageError, match="other layers"):
        BitProgram(SCORES, SIZES).average({"a": 8})


def test_layers_leave_a_group_with_their_sizes():
    rest = BitProgram(SCORES, SIZES).without(("a",))
    assert rest == BitProgram({"b": SCORES["b"]}, {"b": 3.0})
    assert rest.allocate(4).bits == {"b": 4}


def test_the_widest_scores_are_those_at_the_most_bits():
    assert BitProgram(SCORES, SIZES).widest() == {"a": 3.0, "b": 4.0}


def test_a_group_of_a_large_model_keeps_to_the_window():
    group = sdxl_groups()[0]
    found = group.allocate(3.4, tolerance=0.02)
    assert 3.38 <= found.average == group.average(found.bits) <= 3.42
    assert found.gap <= 1e-6


@pytest.mark.parametrize(
    ("bits", "message"),
    [
        ({"a": {2: 2, 4: 4}, "b": {}}, "layer 'a': bits say nothing of its 8-bit candidate"),
        ({"a": {2: 2, 4: 4, 8: float("nan")}}, "layer 'a', bits of its 8-bit candidate: is nan"),
    ],
    ids=["missing", "not a number"],
)
def test_bad_bits_are_named(bits, message):
    with pytest.raises(UsageError, match=message):
        BitProgram(SCORES, SIZES, bits)
