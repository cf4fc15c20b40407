"""Op level, block level, and the steering of their bits."""

import numpy as np
import pytest

from mezzotint.errors import InfeasibleBudgetError
from mezzotint.recipes.qua2sedimo.byte_window import byte_window
from mezzotint.recipes.qua2sedimo.published import block_level, op_level
from mezzotint.recipes.qua2sedimo.steering import steered
from tests.recipes.qua2sedimo.planted import gains_of, space_of


def test_at_op_level_every_weight_takes_its_best_format():
    space = space_of()
    scores = gains_of(space)
    assert (op_level(space, scores) == scores.argmax(axis=1)).all()


def test_of_equal_scores_the_format_of_fewer_bytes_is_taken():
    space = space_of()
    found = op_level(space, np.zeros((len(space.keys), 6)))
    assert (found == space.bytes.argmin(axis=1)).all()


def test_at_block_level_every_block_takes_its_best_variant():
    space = space_of()
    wanted = {group.name: np.arange(len(group.members)) for group in space.groups}

    def score(group, variants):
        return -np.abs(variants - wanted[group.name]).sum(axis=1) * 1.0

    found = block_level(space, score)
    for group in space.groups:
        assert (found[list(group.members)] == wanted[group.name]).all()


@pytest.mark.parametrize("first", [1e-6, 1e-3, 10.0], ids=["too small", "near", "too large"])
def test_steering_meets_the_bits_asked_for(first):
    space = space_of((1,) * 8)
    gains = gains_of(space)
    window = byte_window(space, 3.65 * int(space.sizes.sum()) / 8)

    def best(bit_weight):
        return op_level(space, gains - bit_weight * space.bytes)

    found = steered(space, window, best, first, trainings=40)
    stored = int(space.stored(found.configuration))
    assert 0.9 * window.most < stored <= window.most
    assert (best(found.parameter) == found.configuration).all()


def test_steering_ends_after_so_many_trainings():
    space = space_of()
    window = byte_window(space, 3.65 * int(space.sizes.sum()) / 8)
    asked = []

    def best(bit_weight):
        asked.append(bit_weight)
        return space.bytes.argmin(axis=1)

    found = steered(space, window, best, 1.0, trainings=5)
    assert len(asked) == 5
    assert found.parameter == 1.0


def test_budgets_share_the_values_that_are_tried():
    space = space_of((1,) * 8)
    gains = gains_of(space)
    asked = []

    def best(bit_weight):
        asked.append(bit_weight)
        return op_level(space, gains - bit_weight * space.bytes)

    for bits in (3.4, 3.65):
        steered(space, byte_window(space, bits * int(space.sizes.sum()) / 8), best, 1e-3)
    assert len(set(asked)) < len(asked)


def test_scores_that_never_come_down_to_the_budget_are_told():
    space = space_of()
    window = byte_window(space, 3.4 * int(space.sizes.sum()) / 8)
    with pytest.raises(InfeasibleBudgetError, match="program"):
        steered(space, window, lambda _: space.bytes.argmax(axis=1), 1.0, trainings=3)
