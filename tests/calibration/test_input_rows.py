"""Inputs as rows: what a weight's columns multiply."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import unfold

from mezzotint.calibration.input_rows import input_rows
from mezzotint.runtime import operation_of, shape_of

ALL = 10**6


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def rows(layer: nn.Linear | nn.Conv2d, x: Tensor, most: int = ALL, run: int = 0) -> Tensor:
    return input_rows(x, operation_of(layer), shape_of(layer), most, run)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"stride": 2, "padding": 1},
        {"padding": (2, 0), "dilation": (2, 1)},
        {"groups": 3, "padding": 1},
        {"kernel_size": (1, 3), "stride": (3, 1)},
    ],
    ids=["plain", "stride", "dilation", "groups", "wide"],
)
def test_windows_are_those_of_unfold(settings: dict):
    layer = nn.Conv2d(6, 9, **{"kernel_size": 3} | settings)
    x = noise(2, 6, 9, 8)
    found = rows(layer, x)
    geometry = {key: getattr(layer, key) for key in ("stride", "padding", "dilation")}
    windows = unfold(x, layer.kernel_size, **geometry).transpose(1, 2).flatten(0, 1)
    expected = windows.view(len(windows), layer.groups, -1).transpose(0, 1)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_products_with_rows_are_the_layers_output(padding: str):
    layer = nn.Conv2d(3, 5, (3, 5), padding=padding, bias=False)
    x = noise(2, 3, 7, 6)
    (found,) = rows(layer, x)
    expected = layer(x).permute(0, 2, 3, 1).reshape(-1, 5)
    torch.testing.assert_close(found @ layer.weight.flatten(1).T, expected)


@pytest.mark.parametrize("shape", [(7,), (4, 7), (2, 3, 7)], ids=str)
def test_rows_of_a_linear_are_its_inputs(shape: tuple[int, ...]):
    x = noise(*shape)
    assert torch.equal(rows(nn.Linear(7, 2), x)[0], x.reshape(-1, 7))


def test_an_input_without_a_batch_counts_as_one():
    layer, x = nn.Conv2d(2, 2, 3), noise(2, 5, 5)
    assert torch.equal(rows(layer, x), rows(layer, x[None]))


def test_half_precision_becomes_float32():
    assert rows(nn.Linear(4, 4), noise(3, 4).half()).dtype == torch.float32


class TestSampling:
    X = torch.arange(1000.0).view(-1, 1)

    def taken(self, most: int, run: int = 0) -> Tensor:
        return rows(nn.Linear(1, 1), self.X, most, run).flatten()

    def test_all_are_taken_where_there_are_few(self):
        assert torch.equal(self.taken(1000), self.X.flatten())

    def test_each_stretch_gives_one(self):
        assert torch.equal(self.taken(40) // 25, torch.arange(40.0))

    def test_the_same_run_takes_the_same(self):
        assert torch.equal(self.taken(40), self.taken(40))

    def test_another_run_takes_others(self):
        assert not torch.equal(self.taken(40), self.taken(40, run=1))

    def test_no_pattern_of_positions_is_favoured(self):
        """Of 8 samples of 125 positions, stretches of one sample's length meet all positions."""
        positions = self.taken(8) % 125
        assert len(positions.unique()) == 8
        assert positions.max() - positions.min() > 60
