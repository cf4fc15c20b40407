"""The grid that a layer is packed on."""

import pytest
import torch
from torch import Tensor, nn

from mezzotint.errors import FormatError
from mezzotint.formats import MINMAX, MSE, MixedFormat, parse_weight_format
from mezzotint.plan import Choice, Plan
from mezzotint.rounding import channel_order
from mezzotint.runtime import QuantLayer, pack_layer
from mezzotint.runtime.layer_grid import layer_grid
from tests.runtime.layers import noise


def weight_with_outliers() -> Tensor:
    weight = noise(4, 256)
    weight[1, 0] = 30.0
    return weight


def test_packed_channels_with_outliers_take_the_most_bits():
    layer = nn.Linear(256, 4)
    layer.weight.data = weight_with_outliers()
    packed = pack_layer("layer", layer, Plan({"layer": Choice("mixed/int2:3,int8:1")}))
    assert isinstance(packed, QuantLayer)
    assert packed.weight_tensors()["order"].tolist() == [0, 3, 1, 2]


def test_a_mixture_is_ordered_by_kurtosis():
    fmt, weight = MixedFormat((2, 3, 4), (1, 2, 1)), noise(4, 33)
    expected = fmt.grid(weight, MSE, channel_order(weight, fmt.counts))
    found = layer_grid(fmt, weight, MSE)
    stored, other = (fmt.store(grid, grid.nearest(weight)) for grid in (found, expected))
    assert all(torch.equal(stored[part], other[part]) for part in stored)


@pytest.mark.parametrize("name", ["int3/channel", "kmeans3/channel"])
def test_other_formats_store_channels_as_they_come(name: str):
    fmt, weight = parse_weight_format(name), noise(4, 33)
    assert fmt is not None
    grid = layer_grid(fmt, weight, MINMAX)
    stored, encoded = fmt.store(grid, grid.nearest(weight)), fmt.encode(weight, MINMAX)
    assert all(torch.equal(stored[part], encoded[part]) for part in stored)


def test_counts_that_do_not_fit_are_refused_by_the_name_of_the_format():
    fmt = MixedFormat((2, 3), (1, 2))
    with pytest.raises(FormatError, match="mixed/int2:1,int3:2 holds 3 output channels"):
        layer_grid(fmt, noise(4, 33), MINMAX)
