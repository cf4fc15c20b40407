import pytest

from mezzotint.allocation import BitProgram
from mezzotint.errors import BudgetError, UsageError
from mezzotint.recipes.mixdq.split import Divisions, Span, splits
from mezzotint.recipes.mixdq.sweep import sweep
from tests.allocation.problems import sdxl_groups

FEW = Divisions(Span(-0.3, 0.0, 2), Span(0.6, 1.2, 2), first=(2, 8), second=(4, 8))


def group(name, size=1.0, widths=(4, 8)):
    layers = [f"{name}{i}" for i in range(4)]
    scores = {layer: {bits: i + 0.1 * bits for bits in widths} for i, layer in enumerate(layers)}
    return BitProgram(scores, dict.fromkeys(layers, size))


@pytest.fixture(scope="module")
def large():
    groups = sdxl_groups()
    return groups, sweep(groups, 4.6, FEW, 0.02)


def test_every_split_of_a_large_model_is_a_candidate(large):
    (first, second), candidates = large
    expected = splits(4.6, first.size / second.size, FEW)
    assert len(expected) == 3
    assert tuple(candidate.split for candidate in candidates) == expected


def test_each_group_keeps_to_its_share_of_the_average(large):
    for candidate in large[1]:
        assert candidate.first.average == pytest.approx(candidate.split.first, abs=0.02)
        assert candidate.second.average == pytest.approx(candidate.split.second, abs=0.02)


def test_a_candidate_holds_what_each_group_would_choose_alone(large):
    (first, second), candidates = large
    one = candidates[0]
    assert one.first == first.allocate(one.split.first, 0.02)
    assert one.second == second.allocate(one.split.second, 0.02)


def test_a_candidate_has_bits_for_the_layers_of_both_groups(large):
    (first, second), candidates = large
    assert list(candidates[0].bits) == [*first.scores, *second.scores]


def test_without_a_tolerance_the_average_is_never_exceeded():
    divisions = Divisions(Span(0.0, 0.0, 1), Span(0.8, 1.2, 3), first=(4, 8), second=(4, 8))
    candidates = sweep((group("a", 2.0), group("b")), 6, divisions)
    assert len(candidates) == 3
    for candidate in candidates:
        assert candidate.first.average <= candidate.split.first
        assert candidate.second.average <= candidate.split.second


def test_splits_without_a_solution_in_the_window_are_dropped():
    # Four layers of one size have averages of 4, 5, 6, 7 and 8 only.
    divisions = Divisions(Span(-1.0, 0.0, 3), Span(1.0, 1.0, 1), first=(4, 8), second=(4, 8))
    groups = (group("a"), group("b"))
    assert [each.split.average for each in sweep(groups, 7, divisions, 0.1)] == [6.0, 7.0]
    assert len(sweep(groups, 7, divisions)) == 3


def test_stored_bits_count_in_both_groups():
    plain = group("a")
    stored = BitProgram(
        plain.scores, plain.sizes, {name: {4: 4.5, 8: 8.5} for name in plain.scores}
    )
    divisions = Divisions(Span(0.0, 0.0, 1), Span(1.0, 1.0, 1), first=(4, 8), second=(4, 8))
    (candidate,) = sweep((stored, group("b")), 8, divisions)
    assert candidate.first.average == 7.5
    assert candidate.second.average == 8.0


def test_a_layer_in_both_groups_is_named():
    with pytest.raises(UsageError, match="layer 'a0': is in both groups"):
        sweep((group("a"), group("a")), 6, FEW)


def test_a_negative_tolerance_is_refused():
    with pytest.raises(BudgetError, match="tolerance: is -1"):
        sweep((group("a"), group("b")), 6, FEW, -1)
