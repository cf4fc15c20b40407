"""The grid that a layer is packed on."""

import pytest
import torch
from torch import Tensor, nn

from mezzotint.errors import FormatError
from mezzotint.formats import MINMAX, MSE, MixedFormat, UniformFormat, parse_weight_format
from mezzotint.plan import Choice, Encoding, Plan
from mezzotint.rounding import channel_order, fake_quantize
from mezzotint.runtime import Calibration, GridValues, QuantLayer, pack_layer
from mezzotint.runtime.layer_grid import layer_grid
from tests.runtime.layers import noise

ORDERS = ("kurtosis", "range", "stored", "head-tail", "random")


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
    fmt, weight = MixedFormat(tuple(map(UniformFormat, (2, 3, 4))), (1, 2, 1)), noise(4, 33)
    expected = fmt.grid(weight, MSE, channel_order(weight, fmt.counts))
    found = layer_grid(fmt, weight, Encoding(MSE))
    stored, other = (fmt.store(grid, grid.nearest(weight)) for grid in (found, expected))
    assert all(torch.equal(stored[part], other[part]) for part in stored)


def test_the_plan_may_leave_channels_as_they_are_stored():
    layer = nn.Linear(256, 4)
    layer.weight.data = weight_with_outliers()
    choices = {"layer": Choice("mixed/int2:3,int8:1")}
    plan = Plan(choices, encodings={"layer": Encoding(order="stored")})
    packed = pack_layer("layer", layer, plan)
    assert isinstance(packed, QuantLayer)
    stored, usual = packed.weight_tensors(), pack_layer("layer", layer, Plan(choices))
    assert stored["order"].tolist() == [0, 1, 2, 3]
    assert not torch.equal(packed.dequantized_weight(), usual.dequantized_weight())


@pytest.mark.parametrize("name", ["int3/channel", "kmeans3/channel"])
def test_an_order_changes_no_other_format(name: str):
    layer = nn.Linear(33, 4)
    plans = (Plan({"": Choice(name)}, encoding=Encoding(order=each)) for each in ORDERS)
    one, *others = (pack_layer("", layer, plan).state_dict() for plan in plans)
    assert all(torch.equal(one[key], other[key]) for other in others for key in one)


@pytest.mark.parametrize("order", ORDERS)
def test_trained_values_keep_the_order_that_they_were_trained_in(order: str):
    layer = nn.Linear(33, 4)
    layer.weight.data = noise(4, 33)
    choice, kept = Choice("mixed/kmeans1:1,uint2:2,uint3:1"), torch.tensor([2, 0, 3, 1])
    assert choice.weight_format is not None
    grid = layer_grid(choice.weight_format, layer.weight, Encoding(MINMAX), kept)
    # Training has moved the channel of one bit to where no search would.
    trained = GridValues(fake_quantize(5 * layer.weight.detach(), grid), grid.parameters, kept)
    plan = Plan({"": choice}, encoding=Encoding(MINMAX, "trained", order))
    packed = pack_layer("", layer, plan, Calibration(weights={"": (trained,)}))
    assert isinstance(packed, QuantLayer)
    assert packed.weight_tensors()["order"].tolist() == [2, 0, 3, 1]
    assert torch.equal(packed.dequantized_weight(), trained.values)


def test_trained_values_in_an_order_that_is_no_permutation_are_refused():
    layer = nn.Linear(33, 4)
    trained = GridValues(layer.weight.detach(), order=torch.tensor([0, 1, 2, 2]))
    plan = Plan({"": Choice("mixed/int2:3,int8:1")}, encoding=Encoding(rounding="trained"))
    with pytest.raises(FormatError, match="order is not a permutation"):
        pack_layer("", layer, plan, Calibration(weights={"": (trained,)}))


@pytest.mark.parametrize("name", ["int3/channel", "kmeans3/channel"])
def test_other_formats_store_channels_as_they_come(name: str):
    fmt, weight = parse_weight_format(name), noise(4, 33)
    assert fmt is not None
    grid = layer_grid(fmt, weight, Encoding(MINMAX))
    stored, encoded = fmt.store(grid, grid.nearest(weight)), fmt.encode(weight, MINMAX)
    assert all(torch.equal(stored[part], encoded[part]) for part in stored)


def test_counts_that_do_not_fit_are_refused_by_the_name_of_the_format():
    fmt = MixedFormat((UniformFormat(2), UniformFormat(3)), (1, 2))
    with pytest.raises(FormatError, match="mixed/int2:1,int3:2 holds 3 output channels"):
        layer_grid(fmt, noise(4, 33), Encoding(MINMAX))
