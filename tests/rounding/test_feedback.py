"""Rounding with error feedback: outputs come nearer, weights do not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mezzotint.errors import FormatError
from mezzotint.formats import MINMAX, MSE, Grid, LookupGrid, parse_weight_format
from mezzotint.rounding import InputMoments, feedback, nearest, needs_moments, rounding_named
from tests.devices import DEVICES

ROWS, COLUMNS = 24, 160
FORMATS = (
    "int3/channel",
    "uint2/channel",
    "int1/channel",
    "int8/tensor",
    "uint4/group32",
    "kmeans3/channel",
    "kmeans2/tensor",
    "lut3/channel",
    "mixed/int2:6,int3:12,int4:6",
    "mixed/kmeans1:6,uint2:12,uint3:6",
)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def moments(*grams: Tensor, count: int = 10**6) -> InputMoments:
    """Of one group, or of as many as there are matrices."""
    return InputMoments((torch.stack(grams),), torch.zeros(len(grams), len(grams[0])), count)


def gram(columns: int = COLUMNS, seed: int = 1, *, of: int = 1024) -> Tensor:
    """Of inputs that have much to do with each other, of different energy."""
    mixing = noise(columns, columns, seed=seed) * torch.logspace(0, -2, columns)
    x = noise(of, columns, seed=seed + 1) @ mixing.T
    return x.T @ x / of


def output_error(weight: Tensor, grid: Grid, codes: Tensor, inputs: Tensor) -> float:
    error = weight.flatten(1) - grid.values(codes)
    return float(((error @ inputs) * error).sum())


def nearest_codes(weight: Tensor, grid: Grid) -> Tensor:
    return torch.cat(list(nearest(weight, grid)))


def shared_book() -> LookupGrid:
    levels = torch.tensor([[-3.0, -1.0, 0.5, 2.0]])
    return LookupGrid(levels, (ROWS, COLUMNS), noise(ROWS, 1, seed=9).abs() + 0.5, torch.bfloat16)


@pytest.fixture(params=[*FORMATS, "levels times scale"])
def grid(request: pytest.FixtureRequest) -> Grid:
    if request.param == "levels times scale":
        return shared_book()
    return parse_weight_format(request.param).grid(noise(ROWS, COLUMNS), MSE)


WEIGHT = noise(ROWS, COLUMNS)


def test_it_is_known_by_its_name_and_needs_moments():
    assert rounding_named("feedback") is feedback
    assert needs_moments("feedback")
    assert not needs_moments("nearest")


@pytest.mark.parametrize("energy", [1.0, 3e-9, 7e12])
def test_unrelated_inputs_of_equal_energy_make_it_nearest_rounding(grid: Grid, energy: float):
    found = feedback(WEIGHT, grid, moments(energy * torch.eye(COLUMNS)))
    assert torch.equal(found, nearest_codes(WEIGHT, grid))


def test_unrelated_inputs_of_any_energy_make_it_nearest_rounding(grid: Grid):
    found = feedback(WEIGHT, grid, moments(torch.diag(noise(COLUMNS, seed=3).square())))
    assert torch.equal(found, nearest_codes(WEIGHT, grid))


def test_codes_lie_on_the_grid_and_outputs_come_nearer(grid: Grid):
    inputs = gram()
    found = feedback(WEIGHT, grid, moments(inputs))
    assert torch.equal(grid.codes(grid.values(found)), found)
    before = output_error(WEIGHT, grid, nearest_codes(WEIGHT, grid), inputs)
    assert output_error(WEIGHT, grid, found, inputs) < 0.7 * before


def test_a_single_direction_of_inputs_leaves_next_to_no_error(grid: Grid):
    inputs = noise(COLUMNS, seed=5).outer(noise(COLUMNS, seed=5))
    found = feedback(WEIGHT, grid, moments(inputs))
    before = output_error(WEIGHT, grid, nearest_codes(WEIGHT, grid), inputs)
    assert output_error(WEIGHT, grid, found, inputs) < 0.05 * before


def test_the_weight_itself_comes_less_near():
    grid = parse_weight_format("int3/channel").grid(WEIGHT, MSE)
    found = feedback(WEIGHT, grid, moments(gram()))
    before = (grid.values(nearest_codes(WEIGHT, grid)) - WEIGHT).square().sum()
    assert (grid.values(found) - WEIGHT).square().sum() > before


@pytest.mark.parametrize("name", ["int3/channel", "kmeans3/channel", "mixed/int2:6,int3:12,int4:6"])
def test_a_permutation_of_inputs_permutes_the_codes(name: str):
    grid = parse_weight_format(name).grid(WEIGHT, MINMAX)
    inputs, order = gram(), torch.randperm(COLUMNS, generator=torch.Generator().manual_seed(7))
    found = feedback(WEIGHT, grid, moments(inputs))
    permuted = feedback(WEIGHT[:, order], grid, moments(inputs[order][:, order]))
    assert torch.equal(permuted, found[:, order])


def test_it_is_what_the_inverse_of_the_matrix_gives():
    """Frantar et al. 2022, algorithm 1, one column after the other in float64."""
    grid = parse_weight_format("int3/channel").grid(WEIGHT, MINMAX)
    inputs = gram().double()
    damped = inputs + 0.01 * inputs.diagonal().mean() * torch.eye(COLUMNS, dtype=torch.float64)
    order = inputs.diagonal().argsort(descending=True)
    inverse = torch.linalg.cholesky(damped[order][:, order].inverse(), upper=True)
    left, expected = WEIGHT[:, order].double(), torch.empty(ROWS, COLUMNS, dtype=torch.uint8)
    for j, column in enumerate(order.tolist()):
        codes = grid.nearest(left[:, j : j + 1].float(), slice(column, column + 1))
        error = (left[:, j] - grid.values(codes, slice(column, column + 1))[:, 0]) / inverse[j, j]
        left -= error.outer(inverse[j])
        expected[:, column] = codes[:, 0]
    found = feedback(WEIGHT, grid, moments(inputs.float(), count=10**9))
    assert (found != expected).float().mean() < 0.01


def test_inputs_that_are_always_zero_disturb_nothing():
    dead = torch.arange(0, COLUMNS, 5)
    alive = torch.ones(COLUMNS, dtype=torch.bool)
    alive[dead] = False
    inputs = gram()
    inputs[dead] = 0.0
    inputs[:, dead] = 0.0
    grid = parse_weight_format("int3/channel").grid(WEIGHT, MINMAX)
    found = feedback(WEIGHT, grid, moments(inputs))
    assert torch.equal(found[:, dead], nearest_codes(WEIGHT, grid)[:, dead])
    narrow = parse_weight_format("int3/channel").grid(WEIGHT[:, alive], MINMAX)
    narrow = narrow.with_parameters(grid.parameters)
    others = feedback(WEIGHT[:, alive], narrow, moments(inputs[alive][:, alive]))
    assert torch.equal(found[:, alive], others)


def test_no_input_at_all_is_nearest_rounding(grid: Grid):
    found = feedback(WEIGHT, grid, moments(torch.zeros(COLUMNS, COLUMNS)))
    assert torch.equal(found, nearest_codes(WEIGHT, grid))


def test_a_single_sample_tells_nothing_of_how_inputs_go_together(grid: Grid):
    sample = noise(COLUMNS, seed=5).outer(noise(COLUMNS, seed=5))
    found = feedback(WEIGHT, grid, moments(sample, count=1))
    assert torch.equal(found, nearest_codes(WEIGHT, grid))


def test_groups_of_a_convolution_have_matrices_of_their_own():
    weight = noise(6, 4, 3, 3)
    grid = parse_weight_format("int3/channel").grid(weight, MINMAX)
    first, second = gram(36, seed=11), gram(36, seed=13)
    found = feedback(weight, grid, moments(first, second))
    for rows, inputs in ((slice(0, 3), first), (slice(3, 6), second)):
        assert torch.equal(found[rows], feedback(weight[rows], grid.rows(rows), moments(inputs)))


def test_blocks_of_columns_are_rounded_apart():
    inputs = gram()
    half = COLUMNS // 2
    blocks = tuple(inputs[part, part][None] for part in (slice(0, half), slice(half, COLUMNS)))
    given = InputMoments(blocks, torch.zeros(1, COLUMNS), 10**6)
    grid = parse_weight_format("int3/channel").grid(WEIGHT, MINMAX)
    found = feedback(WEIGHT, grid, given)
    left = parse_weight_format("int3/channel").grid(WEIGHT[:, :half], MINMAX)
    left = left.with_parameters(grid.parameters)
    assert torch.equal(found[:, :half], feedback(WEIGHT[:, :half], left, moments(blocks[0][0])))


def test_half_precision_weights_are_rounded_as_they_are():
    weight = WEIGHT.bfloat16()
    grid = parse_weight_format("int4/channel").grid(weight, MINMAX)
    given = moments(gram())
    assert torch.equal(feedback(weight, grid, given), feedback(weight.float(), grid, given))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "needs the Gram matrices of the layer's inputs"),
        (moments(torch.eye(8)), "of another layer"),
        (InputMoments((), torch.zeros(1, COLUMNS), 5), "no Gram matrices"),
        (
            InputMoments((torch.eye(8)[None],), torch.zeros(1, COLUMNS), 5),
            "Gram matrices of shapes",
        ),
        (moments(torch.full((COLUMNS, COLUMNS), torch.nan)), "NaN or infinite"),
        (moments(9 * torch.ones(COLUMNS, COLUMNS) - 8 * torch.eye(COLUMNS)), "not positive"),
    ],
    ids=["none", "another layer", "means alone", "another matrix", "NaN", "negative"],
)
def test_moments_of_something_else_are_refused(given: InputMoments | None, message: str):
    grid = parse_weight_format("int3/channel").grid(WEIGHT, MINMAX)
    with pytest.raises(FormatError, match=message):
        feedback(WEIGHT, grid, given)


@pytest.mark.parametrize("device", DEVICES)
def test_a_device_finds_the_codes_of_single_rows_on_the_cpu(device: str):
    known, weight = moments(gram()), noise(ROWS, COLUMNS)
    fmt = parse_weight_format("int3/channel")
    assert fmt is not None
    there = weight.to(device)
    found = feedback(there, fmt.grid(there, MSE), known)
    assert found.device.type == device
    expected = torch.cat([feedback(row, fmt.grid(row, MSE), known) for row in weight.split(1)])
    # A last digit may decide a code, and with it some of those that follow.
    assert (found.cpu() == expected).float().mean() > 0.97
