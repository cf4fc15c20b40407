"""Variants of a block, in batches, and their Pareto front."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mezzotint.recipes.qua2sedimo.variants import (
    Variants,
    best_variants,
    every_variant,
    near_variants,
)
from mezzotint.recipes.search_space import Group
from tests.recipes.qua2sedimo.planted import space_of


@pytest.mark.parametrize("batch", [7, 36, 1000])
def test_all_variants_come_once_in_batches_of_bounded_size(batch):
    space = space_of()
    parts = list(every_variant(space, space.groups[2], batch))
    assert max(map(len, parts)) <= batch
    assert len({tuple(row) for part in parts for row in part}) == 6**3


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=30))
def test_the_front_has_the_best_score_of_every_budget(pairs):
    stored, scores = np.array(pairs).T
    variants = Variants(Group("b", (0,)), np.arange(len(pairs))[:, None], stored, scores * 1.0)
    front = variants.front()
    assert (np.diff(front.bytes) > 0).all()
    assert (np.diff(front.scores) > 0).all()
    for budget in range(10):
        if (stored <= budget).any():
            best = front.scores[front.bytes <= budget].max()
            assert best == scores[stored <= budget].max()


def test_the_front_of_all_variants_does_not_depend_on_the_batches():
    space = space_of()
    group = space.groups[2]
    weights = np.random.default_rng(3).random((3, 6))

    def score(variants):
        return weights[np.arange(3), variants].sum(axis=1)

    whole, parts = (best_variants(space, group, score, batch) for batch in (1000, 5))
    assert (whole.formats == parts.formats).all()
    assert (whole.best == weights.argmax(axis=1)).all()


@pytest.mark.parametrize(("changes", "count"), [(1, 1 + 3 * 5), (2, 1 + 3 * 5 + 3 * 25)])
def test_near_variants_differ_in_so_many_weights(changes, count):
    current = np.array([0, 3, 5])
    near = near_variants(space_of(), current, changes)
    assert (near[0] == current).all()
    assert len({tuple(row) for row in near}) == len(near) == count
    assert (near != current).sum(axis=1).max() == changes
