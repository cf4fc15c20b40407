"""Rounding to nearest, and the names of roundings."""

import pytest
import torch

from mezzotint.errors import FormatError
from mezzotint.formats import MSE, parse_weight_format
from mezzotint.rounding import nearest, rounding_named
from tests.formats.strategies import normal


@pytest.mark.parametrize("name", ["int3/channel", "uint4/group8", "kmeans3/tensor", "lut3/channel"])
def test_its_codes_are_those_of_encode(name: str):
    fmt, weight = parse_weight_format(name), normal(6, 3, 3, 3)
    assert fmt is not None
    grid = fmt.grid(weight, MSE)
    stored, encoded = fmt.store(grid, nearest(weight, grid)), fmt.encode(weight, MSE)
    assert all(torch.equal(stored[part], encoded[part]) for part in encoded)


def test_plans_know_it_by_name():
    assert rounding_named("nearest") is nearest


def test_an_unknown_name_is_refused():
    with pytest.raises(FormatError, match="unknown rounding 'up'; there are: feedback, nearest"):
        rounding_named("up")
