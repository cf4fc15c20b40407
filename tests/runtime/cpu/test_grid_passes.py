"""Choosing grids and rounding to them: the C functions and torch, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mezzotint.formats import MSE, ClipCandidates, RangeSearch, compiled, parse_weight_format
from mezzotint.formats.book_sums import BINS, bin_totals, level_products, level_steps
from mezzotint.formats.cheapest_path import PathCosts, cheapest_path
from mezzotint.formats.clip_errors import squared_errors
from mezzotint.formats.lookup_grid import nearest_levels
from mezzotint.runtime.cpu import GridPasses, library
from tests.formats.strategies import normal, weights

pytestmark = pytest.mark.skipif(
    not GridPasses().available(), reason="built without the C functions"
)

FORMATS = (
    *(f"int{bits}/channel" for bits in range(1, 9)),
    "uint1/channel", "uint4/channel", "int4/tensor", "uint8/tensor", "int1/group8", "int4/group8",
    "uint3/group32", *(f"lut{bits}/channel" for bits in (1, 3, 6)), "kmeans3/channel",
)  # fmt: skip


@contextmanager
def torch_alone():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "_HANDED_IN", [])
        yield


def both_ways(compute: Callable[[], tuple[Tensor, ...]]) -> None:
    """Both give the same, and none of it is NaN."""
    found = compute()
    with torch_alone():
        expected = compute()
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


@given(weight=weights(limit=1e37), name=st.sampled_from(FORMATS), steps=st.sampled_from([1, 5]))
def test_any_weight_is_stored_alike(weight: Tensor, name: str, steps: int):
    fmt = parse_weight_format(name)
    assert fmt is not None
    search = RangeSearch(steps, 0.3)
    both_ways(lambda: tuple(tensor for _, tensor in sorted(fmt.encode(weight, search).items())))


@pytest.mark.parametrize("shape", [(70, 300), (3, 1), (1, 1111), (65, 17, 3, 3)], ids=str)
@pytest.mark.parametrize("name", ["int4/channel", "uint3/group64", "int8/tensor", "lut4/channel"])
def test_lanes_parts_and_ragged_groups_are_added_alike(name: str, shape: tuple[int, ...]):
    fmt, weight = parse_weight_format(name), normal(*shape)
    assert fmt is not None
    both_ways(lambda: tuple(tensor for _, tensor in sorted(fmt.encode(weight, MSE).items())))


@given(
    matrix=weights(columns=700, limit=1e30),
    bits=st.integers(1, 8),
    size=st.integers(1, 700),
    shared=st.booleans(),
    symmetric=st.booleans(),
    seed=st.integers(0, 9),
)
def test_errors_of_candidates_are_the_same(
    matrix: Tensor, bits: int, size: int, shared: bool, symmetric: bool, seed: int
):
    size = min(size, matrix.shape[1])
    generator = torch.Generator().manual_seed(seed)
    blocks = 1 if shared else len(matrix) * -(-matrix.shape[1] // size)
    peak = float(matrix.abs().max().clamp(min=1e-30))
    scale = torch.rand(3, blocks, generator=generator).add_(0.01).mul_(peak)
    zero_point = torch.randint(2**bits, (3, blocks), generator=generator).float()
    candidates = ClipCandidates(bits, size, scale, None if symmetric else zero_point)
    both_ways(lambda: (squared_errors(matrix, candidates),))


@given(matrix=weights(rows=70, columns=90, limit=1e30), seed=st.integers(0, 9))
def test_bins_are_counted_and_summed_the_same(matrix: Tensor, seed: int):
    generator = torch.Generator().manual_seed(seed)
    rows = len(matrix)
    scale = (matrix.abs().amax(1).double() / 127).clamp(min=1e-38)
    scale *= torch.rand(rows, generator=generator, dtype=torch.float64) + 0.5
    counted, summed = torch.rand(2, rows, generator=generator, dtype=torch.float64).unbind()
    levels = torch.randint(-127, 128, (BINS,), generator=generator).double()
    both_ways(lambda: bin_totals(matrix, scale, counted, summed))
    both_ways(lambda: level_products(matrix, scale, levels))
    below = torch.cat([counted.new_zeros(1), torch.rand(BINS, generator=generator).double()])
    both_ways(lambda: (level_steps(below.cumsum(0), below.sub(0.5).cumsum(0)),))


@given(matrix=weights(), bits=st.integers(1, 8), books=st.booleans(), scaled=st.booleans())
def test_nearest_levels_are_the_same_even_of_what_is_not_finite(
    matrix: Tensor, bits: int, books: bool, scaled: bool
):
    borders = normal(len(matrix) if books else 1, 2**bits - 1).sort(1).values
    matrix = torch.cat(
        [matrix, matrix.new_tensor([torch.nan, torch.inf]).expand(len(matrix), 2)], 1
    )
    matrix[:, 0] = borders[:, 0]  # on a border: below it
    scale = None
    if scaled:
        scale = normal(len(matrix), 1).abs() + 0.1
    both_ways(lambda: (nearest_levels(matrix, scale, borders),))


@given(places=st.integers(2, 70), seed=st.integers(0, 99), data=st.data())
def test_the_cheapest_path_is_the_same_among_equal_ones(
    places: int, seed: int, data: st.DataObject
):
    count = data.draw(st.integers(2, places))
    generator = torch.Generator().manual_seed(seed)

    def costs(*shape: int) -> Tensor:
        return torch.randint(4, shape, generator=generator).double()

    step = costs(places, places)
    step[torch.ones(places, places, dtype=torch.bool).triu()] = torch.inf
    path = PathCosts(costs(places), step, costs(places))
    found = cheapest_path(path, count)
    assert len(found) == count
    assert found == sorted(set(found))
    both_ways(lambda: (torch.tensor(cheapest_path(path, count)),))


@pytest.mark.parametrize("name", ["int4/channel", "uint4/group64", "int4/tensor", "lut4/channel"])
def test_any_number_of_threads_stores_the_same(name: str, monkeypatch: pytest.MonkeyPatch):
    fmt, weight = parse_weight_format(name), normal(150, 130)
    assert fmt is not None
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    alone = fmt.encode(weight, MSE)
    monkeypatch.setattr(library, "_WORTH_A_THREAD", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    together = fmt.encode(weight, MSE)
    assert all(torch.equal(together[each], alone[each]) for each in alone)
