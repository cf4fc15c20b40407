"""The program around its own answer."""

import numpy as np
import pytest

from mezzotint.recipes.qua2sedimo.around import settled, single_changes
from mezzotint.recipes.qua2sedimo.byte_window import byte_window
from tests.recipes.qua2sedimo.planted import every_configuration, gains_of, linear, space_of


def window_of(space, bits):
    return byte_window(space, bits * int(space.sizes.sum()) / 8)


def best_of_all(space, value, window):
    every = every_configuration(space)
    inside = every[(space.stored(every) <= window.most) & (space.stored(every) >= window.least)]
    return value(inside).max()


def test_a_planted_linear_truth_is_found_in_one_round_and_stays():
    space = space_of()
    value, window = linear(gains_of(space)), window_of(space, 3.65)
    found = settled(space, value, window, np.zeros(len(space.keys), dtype=np.int64), rounds=5)
    assert (found.rounds, found.stays) == (2, True)
    assert found.value == pytest.approx(best_of_all(space, value, window))
    assert window.holds(int(space.stored(found.configuration)))


def test_what_weights_of_one_block_do_together_is_seen():
    space = space_of((2, 1, 3))
    gains = gains_of(space)

    def value(configurations):
        together = (configurations[:, 0] == 4) & (configurations[:, 1] == 4)
        return linear(gains)(configurations) + 50.0 * together

    start = np.zeros(len(space.keys), dtype=np.int64)
    found = settled(space, value, window_of(space, 3.65), start, rounds=5)
    assert (found.configuration[:2] == 4).all()


def test_further_rounds_see_what_blocks_do_together():
    space = space_of((1, 1, 1, 1))
    alone, window = linear(gains_of(space)), window_of(space, 3.7)
    start = np.full(len(space.keys), 2)
    likely = settled(space, alone, window, start, rounds=5).configuration

    def value(configurations):
        together = (configurations[:, :2] == likely[:2]).all(axis=1)
        return alone(configurations) - 3.0 * together

    one, five = (settled(space, value, window, start, rounds=rounds) for rounds in (1, 5))
    assert (one.configuration == likely).all()
    assert five.value > one.value


def test_at_the_most_so_many_rounds_are_solved():
    space = space_of()
    generator = np.random.default_rng(0)

    def value(configurations):
        return generator.random(len(configurations))

    start = np.zeros(len(space.keys), dtype=np.int64)
    assert settled(space, value, window_of(space, 3.65), start, rounds=3).rounds <= 3


def test_blocks_of_many_variants_are_changed_step_by_step():
    space = space_of((5, 1))
    value, window = linear(gains_of(space)), window_of(space, 3.65)
    start = np.zeros(len(space.keys), dtype=np.int64)
    found = settled(space, value, window, start, rounds=5)
    assert found.value == pytest.approx(best_of_all(space, value, window))


def test_variants_of_a_front_are_options_of_large_blocks():
    space = space_of((5, 1))
    wanted = np.full(5, 4)

    def value(configurations):
        fours = configurations[:, :5] == 4
        return 10.0 * fours.all(axis=1) - fours.sum(axis=1)

    start = np.zeros(len(space.keys), dtype=np.int64)
    filled = np.array([[4, 4, 4, 4, 4, 5]])
    window = window_of(space, float(space.bits(filled)[0]) + 1e-6)
    without = settled(space, value, window, start, rounds=5)
    told = settled(
        space,
        value,
        window,
        start,
        rounds=5,
        fronts=lambda group: wanted[None, : len(group.members)],
    )
    assert (without.value, told.value) == (0.0, 5.0)


def test_single_changes_are_in_the_targets_own_units():
    space = space_of()
    gains = gains_of(space)
    start = np.full(len(space.keys), 2)
    assert single_changes(space, linear(gains), start) == pytest.approx(gains - gains[:, [2]])
