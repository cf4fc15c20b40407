"""Weights are encoded a few rows at a time, and nobody can tell."""

import pytest
import torch

from mezzotint.errors import FormatError
from mezzotint.formats import MINMAX, MSE, UniformFormat

ROWS, COLUMNS = 6, 150_000
"""More than is encoded together, so that rows are cut between pieces."""

FORMATS = [
    UniformFormat(1),
    UniformFormat(4),
    UniformFormat(3, symmetric=False),
    UniformFormat(5, granularity="group", group_size=4096),
]


@pytest.fixture(scope="module")
def weight() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    scales = torch.logspace(-3, 1, ROWS).unsqueeze(1)
    return torch.randn(ROWS, COLUMNS, generator=generator) * scales


@pytest.mark.parametrize("each", FORMATS, ids=str)
def test_each_row_is_encoded_as_if_alone(each: UniformFormat, weight: torch.Tensor):
    together = each.encode(weight, MINMAX)
    for row in range(ROWS):
        for name, tensor in each.encode(weight[row : row + 1], MINMAX).items():
            assert torch.equal(together[name][row : row + 1], tensor)


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_scale_of_the_tensor_knows_every_row(weight: torch.Tensor, symmetric: bool):
    each = UniformFormat(8, symmetric, "tensor")
    error = (each.roundtrip(weight, MINMAX) - weight).abs().max()
    assert error <= weight.abs().max() / 127


def test_the_mean_magnitude_knows_every_row(weight: torch.Tensor):
    each = UniformFormat(1, granularity="tensor")
    assert torch.allclose(each.roundtrip(weight, MINMAX).abs(), weight.abs().mean())


def test_the_search_knows_every_row(weight: torch.Tensor):
    """Clipping is worth more in the many small rows than in the few large ones."""
    each = UniformFormat(3, granularity="tensor")
    errors = []
    for ratio in MSE.ratios[::4]:
        scale = weight.abs().max() * ratio / 3
        rounded = (weight / scale).round().clamp(-4, 3) * scale
        errors.append((rounded - weight).double().square().sum())
    found = (each.roundtrip(weight, MSE) - weight).double().square().sum()
    assert found <= 1.0001 * min(errors) < errors[0]


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_one_bad_value_is_found_wherever_it_is(weight: torch.Tensor, value: float):
    bad = weight.clone()
    bad[-1, -1] = value
    with pytest.raises(FormatError, match="NaN or infinite"):
        UniformFormat(4).encode(bad, MINMAX)
