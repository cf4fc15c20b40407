"""Configurations as numbers."""

import numpy as np
import pytest

from mezzotint.errors import UsageError
from mezzotint.recipes.search_space import Group, SearchSpace
from tests.recipes.qua2sedimo.planted import space_of


def test_a_configuration_stores_the_bytes_of_its_formats():
    space = space_of()
    row = np.arange(len(space.keys)) % len(space.formats)
    expected = sum(int(space.bytes[index, row[index]]) for index in range(len(space.keys)))
    assert space.stored(row) == expected
    assert space.bits(row[None])[0] == pytest.approx(expected * 8 / space.sizes.sum())


def test_configurations_have_names_and_numbers():
    space = space_of()
    row = np.arange(len(space.keys)) % len(space.formats)
    assert (space.row(space.named(row)) == row).all()


@pytest.mark.parametrize("formats", [{}, {"layer0": "lut9/channel"}], ids=["none", "unknown"])
def test_a_weight_without_a_known_format_is_named(formats):
    with pytest.raises(UsageError, match="layer0"):
        space_of().row(formats)


@pytest.mark.parametrize("members", [(0,), (0, 1, 1)], ids=["left out", "twice"])
def test_every_weight_is_in_exactly_one_block(members):
    with pytest.raises(UsageError, match="layer1: is in"):
        SearchSpace(
            ("layer0", "layer1"),
            ("a", "b"),
            np.ones((2, 2), dtype=np.int64),
            np.ones(2, dtype=np.int64),
            (Group("block", members),),
        )


def test_bytes_are_of_every_weight_and_format():
    with pytest.raises(UsageError, match="bytes"):
        SearchSpace(
            ("layer0",),
            ("a", "b"),
            np.ones((1, 3), dtype=np.int64),
            np.ones(1, dtype=np.int64),
            (Group("block", (0,)),),
        )
