"""Bits asked for are bits got."""

import numpy as np
import pytest

from mezzotint.errors import InfeasibleBudgetError
from mezzotint.recipes.qua2sedimo.byte_window import best_within, byte_window, scored_singly
from mezzotint.recipes.search_space import Group, SearchSpace
from tests.recipes.qua2sedimo.planted import every_configuration, gains_of, linear, space_of


def bytes_at(space, bits):
    return bits * int(space.sizes.sum()) / 8


def coarse():
    """Two large weights: nothing lies between 3 and 3.5 bits."""
    return SearchSpace(
        ("a", "b"),
        ("three", "four"),
        np.array([[300, 400], [300, 400]]),
        np.array([800, 800]),
        (Group("a", (0,)), Group("b", (1,))),
    )


@pytest.mark.parametrize("bits", [3.4, 3.65, 3.9])
def test_the_best_configuration_stores_what_was_asked_for(bits):
    space = space_of()
    gains = gains_of(space)
    window = byte_window(space, bytes_at(space, bits))
    found = best_within(space, scored_singly(space, gains), window)
    stored = int(space.stored(found))
    assert 0.995 * bytes_at(space, bits) <= stored <= bytes_at(space, bits)
    every = every_configuration(space_of())[::7]
    inside = every[[window.holds(int(each)) for each in space.stored(every)]]
    assert linear(gains)(found[None])[0] >= linear(gains)(inside).max() - 1e-9


def test_where_nothing_lies_between_the_nearest_below_is_proven():
    window = byte_window(coarse(), 799)
    assert (window.least, window.proven) == (700, True)
    assert not byte_window(coarse(), 700.5).proven


def test_more_bytes_are_taken_even_where_scores_want_fewer():
    space = space_of()
    gains = -np.asarray(space.bytes, dtype=float)
    window = byte_window(space, bytes_at(space, 3.9))
    found = best_within(space, scored_singly(space, gains), window)
    assert window.holds(int(space.stored(found)))


@pytest.mark.parametrize(
    ("most", "told"),
    [(599, r"needs? 3\.000 bits .* 600 bytes"), (900, r"take 4\.000 bits")],
    ids=["below the smallest", "above the largest"],
)
def test_a_budget_that_cannot_be_met_names_the_nearest(most, told):
    with pytest.raises(InfeasibleBudgetError, match=told):
        byte_window(coarse(), most)


def test_variants_that_miss_the_window_give_no_configuration():
    space = coarse()
    window = byte_window(space, 700)
    only_three = [each.front() for each in scored_singly(space, np.array([[1.0, 0], [1, 0]]))]
    assert best_within(space, only_three, window) is None
