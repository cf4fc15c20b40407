"""Lloyd's algorithm in one dimension."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mezzotint.formats.kmeans import borders, kmeans
from tests.formats.strategies import normal, weights


def squared_error(rows: Tensor, levels: Tensor) -> Tensor:
    """Σ (w - nearest level)² of each row."""
    distance = rows.double().unsqueeze(2) - levels.double().unsqueeze(1)
    return distance.square().amin(2).sum(1)


def least_error(row: list[float], count: int) -> float:
    """Least error over all ways to cut the sorted row into clusters."""
    values = torch.tensor(sorted(row), dtype=torch.float64)
    totals = []
    for cuts in itertools.combinations(range(1, len(values)), count - 1):
        edges = (0, *cuts, len(values))
        parts = [values[a:b] for a, b in itertools.pairwise(edges)]
        totals.append(sum(float((part - part.mean()).square().sum()) for part in parts))
    return min(totals)


def test_two_clouds_have_a_level_in_the_middle_of_each():
    rows = torch.tensor([[9.0, -1.0, 0.0, 10.0, 1.0, 11.0]])
    assert kmeans(rows, 2).tolist() == [[0.0, 10.0]]


def test_levels_are_ascending_doubles_per_row():
    levels = kmeans(normal(5, 300), 16)
    assert (levels.shape, levels.dtype) == ((5, 16), torch.float64)
    assert bool((levels.diff(dim=1) > 0).all())


@given(weight=weights(), count=st.sampled_from([2, 4, 16]))
def test_levels_stay_within_the_values(weight: Tensor, count: int):
    levels = kmeans(weight, count)
    assert bool((levels >= weight.amin(1, keepdim=True)).all())
    assert bool((levels <= weight.amax(1, keepdim=True)).all())
    assert bool((levels.diff(dim=1) >= 0).all())


@given(weight=weights(rows=6, columns=16))
def test_few_distinct_values_are_all_kept(weight: Tensor):
    levels = kmeans(weight, 16)
    for row, found in zip(weight, levels, strict=True):
        distinct = row.unique().double()
        assert torch.equal(found[: len(distinct)], distinct)
        assert bool((found[len(distinct) :] == distinct[-1]).all())


def test_values_of_very_different_size_are_all_kept():
    rows = torch.tensor([[-3e38, 1e-38, 1.0, 2.0, 1e6, 3e38]])
    assert torch.equal(kmeans(rows, 8)[0, :6], rows[0].double())


@given(weight=weights(limit=1e30), count=st.sampled_from([2, 3, 8]))
def test_one_level_at_the_mean_is_never_better(weight: Tensor, count: int):
    around_mean = squared_error(weight, weight.double().mean(1, keepdim=True))
    levels = kmeans(weight, count)
    assert bool((squared_error(weight, levels) <= around_mean * (1 + 1e-9)).all())


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("seed", range(5))
def test_small_rows_come_near_the_best_clustering(count: int, seed: int):
    row = normal(1, 14, seed=seed)
    found = float(squared_error(row, kmeans(row, count)))
    assert found <= 1.5 * least_error(row[0].tolist(), count)


def test_levels_are_means_of_their_values():
    row = normal(1, 2000)
    levels = kmeans(row, 8)
    index = torch.searchsorted(borders(levels), row)[0]
    means = [float(row[0, index == level].double().mean()) for level in range(8)]
    assert levels[0].tolist() == pytest.approx(means, abs=1e-9)


@pytest.mark.parametrize(("count", "least"), [(2, 0.3634), (4, 0.1175), (8, 0.03454), (16, 0.0095)])
def test_normal_weights_come_near_the_known_optimum(count: int, least: float):
    # Max 1960, table I: the least distortion of a normal variable.
    row = normal(1, 50_000)
    found = float(squared_error(row, kmeans(row, count)) / row.double().var() / row.numel())
    assert found == pytest.approx(least, rel=0.03)


def test_outliers_get_levels_of_their_own():
    row = normal(1, 4096) / 100
    row[0, :3] = torch.tensor([5.0, 6.0, -7.0])
    distance = kmeans(row, 16)[0].unsqueeze(1) - row[0, :3].double()
    assert bool((distance.abs().amin(0) < 1e-6).all())


def test_many_equal_values_do_not_waste_levels():
    row = normal(1, 1000)
    row[:, ::2] = 0.0
    levels = kmeans(row, 16)
    used = torch.searchsorted(borders(levels), row).unique()
    assert len(used) == 16


def test_a_row_does_not_see_the_others():
    rows = normal(4, 200)
    rows[1] *= 1e20
    rows[2] = 0.5
    together = kmeans(rows, 8)
    for row in range(4):
        assert torch.equal(kmeans(rows[row : row + 1], 8)[0], together[row])


def test_rows_that_settle_sooner_wait_for_the_others():
    sizes = (3, 40, 700, 701, 702)
    rows = torch.stack([normal(1, size, seed=size).repeat(1, 240)[0, :702] for size in sizes])
    alone = torch.cat([kmeans(row.unsqueeze(0), 8) for row in rows])
    assert torch.equal(kmeans(rows, 8), alone)


def test_zeros_have_no_sign():
    for rows in (torch.tensor([[-0.0, 0.0, 1.0]]), torch.tensor([[0.0, -0.0, 1.0]])):
        assert not bool(kmeans(rows, 2).signbit().any())


def test_the_order_of_values_does_not_matter():
    rows = normal(3, 200)
    assert torch.equal(kmeans(rows.flip(1), 8), kmeans(rows, 8))


def test_borders_of_huge_levels_are_finite():
    levels = torch.tensor([[-3.4e38, 3.3e38, 3.4e38]])
    assert bool(torch.isfinite(borders(levels)).all())
