"""Fake quantization: the values that are stored, with gradients to weights and parameters."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mezzotint.formats import (
    MINMAX,
    ActivationFormat,
    AffineGrid,
    Grid,
    LookupGrid,
    MixedFormat,
    UniformFormat,
    WeightFormat,
    parse_weight_format,
)
from mezzotint.rounding import fake_quantize, fake_quantize_input
from tests.formats.strategies import NAMES, normal, weights

ROWS = 4
MIXED = (
    "mixed/int2:1,int3:2,int4:1",
    "mixed/uint1:3,uint8:1",
    "mixed/int1:1,int5:3",
    "mixed/kmeans1:2,uint2:1,uint3:1",
    "mixed/lut1:1,lut4:3",
)
TABLES = ("kmeans1/channel", "kmeans3/tensor", "lut3/channel")
SOME = ("int1/tensor", "int3/channel", "uint2/channel", "uint4/group8", "int4/group8", *MIXED)
FOUR_ROWS = weights(limit=1e30, rows=ROWS, least_rows=ROWS)


def parsed(name: str) -> WeightFormat:
    found = parse_weight_format(name)
    assert found is not None
    return found


def grid_of(fmt: WeightFormat, weight: Tensor) -> Grid:
    """With an order of channels where there is one to choose."""
    if isinstance(fmt, MixedFormat):
        return fmt.grid(weight, MINMAX, order=torch.tensor([2, 0, 3, 1]))
    return fmt.grid(weight, MINMAX)


def learned(grid: Grid, factor: float = 1.0) -> dict[str, Tensor]:
    """Its parameters, the scale times `factor`, for training."""
    parameters = {name: old.clone() for name, old in grid.parameters.items()}
    if "scale" in parameters:
        parameters["scale"] *= factor
    return {name: old.requires_grad_() for name, old in parameters.items()}


class TestValues:
    @given(name=st.sampled_from((*NAMES, *TABLES, *MIXED)), weight=FOUR_ROWS)
    def test_they_are_those_that_are_stored(self, name: str, weight: Tensor):
        fmt = parsed(name)
        grid = grid_of(fmt, weight)
        worth = fake_quantize(weight.clone().requires_grad_(), grid.with_parameters(learned(grid)))
        stored = fmt.store(grid, grid.nearest(weight))
        assert torch.equal(worth, fmt.decode(stored, tuple(weight.shape)))

    @pytest.mark.parametrize("name", [*SOME, *TABLES])
    def test_a_convolution_keeps_its_shape(self, name: str):
        weight = normal(ROWS, 3, 3, 3)
        grid = grid_of(parsed(name), weight)
        expected = grid.values(grid.nearest(weight.flatten(1))).view(weight.shape)
        assert torch.equal(fake_quantize(weight, grid), expected)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
    def test_weights_of_half_precision_give_float32(self, dtype: torch.dtype):
        weight = normal(ROWS, 19).to(dtype).requires_grad_()
        fmt = parsed("int3/channel")
        worth = fake_quantize(weight, fmt.grid(weight, MINMAX))
        assert torch.equal(worth, fmt.roundtrip(weight, MINMAX))
        worth.sum().backward()
        assert weight.grad is not None
        assert weight.grad.dtype == dtype

    @given(
        zero_point=st.lists(st.floats(-1e3, 1e3, width=32), min_size=2, max_size=2),
        bits=st.integers(1, 4),
        weight=weights(limit=1e6, rows=2, columns=80, least_rows=2),
    )
    def test_whatever_the_zero_point_there_are_no_more_values_than_codes(
        self, zero_point: list[float], bits: int, weight: Tensor
    ):
        fmt = UniformFormat(bits, symmetric=False)
        grid = fmt.grid(weight, MINMAX)
        moved = grid.with_parameters({"zero_point": torch.tensor(zero_point).view(2, 1)})
        worth = fake_quantize(weight, moved)
        assert all(row.unique().numel() <= 2**bits for row in worth)
        fmt.store_values(moved, worth)


class TestGradientOfTheWeight:
    @pytest.mark.parametrize("name", SOME)
    def test_it_is_one_unless_the_weight_is_clipped(self, name: str):
        weight = normal(ROWS, 50)
        grid = grid_of(parsed(name), weight)
        grid = grid.with_parameters({"scale": grid.parameters["scale"] * 0.5})
        moving = weight.clone().requires_grad_()
        fake_quantize(moving, grid).sum().backward()
        assert moving.grad is not None
        covered = grid.covers(weight)
        assert torch.equal(moving.grad, covered.float())
        assert 0 < int(covered.sum()) < covered.numel()

    @pytest.mark.parametrize("name", TABLES)
    def test_it_is_one_within_half_a_gap_of_a_table(self, name: str):
        grid = parsed(name).grid(normal(ROWS, 50), MINMAX)
        weight = 2 * normal(ROWS, 50, seed=1)
        moving = weight.clone().requires_grad_()
        fake_quantize(moving, grid).sum().backward()
        assert moving.grad is not None
        covered = grid.covers(weight)
        assert torch.equal(moving.grad, covered.float())
        assert 0 < int(covered.sum()) < covered.numel()

    def test_it_carries_what_follows(self):
        weight, slope = normal(ROWS, 19).requires_grad_(), normal(ROWS, 19, seed=1)
        grid = parsed("uint8/channel").grid(weight, MINMAX)
        (fake_quantize(weight, grid) * slope).sum().backward()
        assert weight.grad is not None
        assert torch.equal(weight.grad, slope)


class TestGradientOfParameters:
    @pytest.mark.parametrize("factor", [1.0, 0.5])
    @pytest.mark.parametrize("symmetric", [True, False])
    def test_a_scale_receives_that_of_a_learned_step_size(self, symmetric: bool, factor: float):
        weight, slope = normal(ROWS, 50), normal(ROWS, 50, seed=1)
        grid = UniformFormat(3, symmetric).grid(weight, MINMAX)
        parameters = learned(grid, factor)
        grid = grid.with_parameters(parameters)
        (fake_quantize(weight, grid) * slope).sum().backward()

        scale = parameters["scale"].detach()
        zero_point = torch.full((ROWS, 1), 4.0) if symmetric else grid.zero_point.detach()
        whole = grid.nearest(weight).float() - zero_point
        inside = grid.covers(weight)
        expected = torch.where(inside, whole - weight / scale, whole)
        assert torch.allclose(
            parameters["scale"].grad, (slope * expected).sum(1, keepdim=True), atol=1e-5
        )
        if not symmetric:
            clipped = torch.where(inside, 0.0, -slope * scale).sum(1, keepdim=True)
            assert torch.allclose(parameters["zero_point"].grad, clipped, atol=1e-6)

    @pytest.mark.parametrize("name", [*SOME, *TABLES])
    def test_it_reaches_every_scale_and_level(self, name: str):
        weight = normal(ROWS, 50)
        grid = grid_of(parsed(name), weight)
        parameters = learned(grid)
        fake_quantize(weight, grid.with_parameters(parameters)).pow(3).sum().backward()
        found = parameters["scale" if "scale" in parameters else "levels"].grad
        assert found is not None
        assert bool((found != 0).all())

    def test_a_level_receives_what_its_weights_do(self):
        levels = torch.tensor([[-1.0, 0.0, 2.0]], requires_grad=True)
        grid = LookupGrid(torch.tensor([[-1.0, 0.0, 2.0]]), (1, 4))
        grid = grid.with_parameters({"levels": levels})
        weight = torch.tensor([[-0.9, 1.8, 2.1, 0.1]])
        (fake_quantize(weight, grid) * torch.tensor([[1.0, 2.0, 3.0, 4.0]])).sum().backward()
        assert levels.grad.tolist() == [[1.0, 4.0, 5.0]]

    def test_each_channel_of_a_mixture_learns_as_if_alone(self):
        weight, fmt = normal(ROWS, 19), parsed("mixed/uint2:1,uint3:2,uint4:1")
        grid = grid_of(fmt, weight)
        parameters = learned(grid)
        fake_quantize(weight, grid.with_parameters(parameters)).pow(3).sum().backward()
        for channel, bits in enumerate([3, 2, 4, 3]):
            row = weight[channel : channel + 1]
            alone = UniformFormat(bits, symmetric=False).grid(row, MINMAX)
            own = learned(alone)
            fake_quantize(row, alone.with_parameters(own)).pow(3).sum().backward()
            for name, parameter in own.items():
                assert torch.equal(parameters[name].grad[channel], parameter.grad[0])


class TestTraining:
    @pytest.mark.parametrize("name", ["uint2/channel", "int3/group8", "mixed/int1:1,int2:3"])
    def test_what_was_trained_is_stored_exactly(self, name: str):
        fmt, target = parsed(name), normal(ROWS, 50)
        grid = grid_of(fmt, target)
        weight = nn.Parameter(target.clone())
        parameters = learned(grid)
        optimizer = torch.optim.Adam([weight, *parameters.values()], lr=1e-2)
        inputs = normal(50, 30, seed=1)
        errors = []
        for _ in range(60):
            worth = fake_quantize(weight, grid.with_parameters(parameters))
            error = ((worth - target) @ inputs).square().mean()
            optimizer.zero_grad()
            error.backward()
            optimizer.step()
            errors.append(error.item())
        assert min(errors) < 0.8 * errors[0]
        trained = grid.with_parameters(parameters)
        worth = fake_quantize(weight, trained).detach()
        tensors = fmt.store_values(trained, worth)
        fmt.check(tensors)
        assert torch.equal(fmt.decode(tensors, (ROWS, 50)), worth)

    def test_a_weight_far_outside_harms_no_gradient(self):
        grid = replace(
            AffineGrid(2, torch.ones(1, 1), None, (1, 2), 2),
            scale=torch.full((1, 1), 1e-30, requires_grad=True),
        )
        weight = torch.tensor([[3e38, 1e-30]], requires_grad=True)
        fake_quantize(weight, grid).sum().backward()
        assert weight.grad.tolist() == [[0.0, 1.0]]
        assert bool(torch.isfinite(grid.scale.grad).all())


class TestInputs:
    @pytest.mark.parametrize("symmetric", [True, False])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
    def test_they_are_rounded_as_packed_layers_do(self, symmetric: bool, dtype: torch.dtype):
        activation = ActivationFormat(4, symmetric, "tensor")
        scale, zero_point = activation.range_parameters(-1.0, 1.5, torch.device("cpu"))
        x = normal(ROWS, 50).to(dtype)
        found = fake_quantize_input(x, scale, None if symmetric else zero_point, 4)
        assert torch.equal(found, activation.roundtrip(x, scale, zero_point))

    def test_samples_may_have_scales_of_their_own(self):
        x, scale = normal(2, 3, 4, 4), torch.tensor([0.1, 0.3]).view(2, 1, 1, 1).requires_grad_()
        zero_point = torch.tensor([3.0, 7.0]).view(2, 1, 1, 1).requires_grad_()
        fake_quantize_input(x, scale, zero_point, 4).square().sum().backward()
        for index in range(2):
            one, shift = (
                each.detach()[index : index + 1].requires_grad_() for each in (scale, zero_point)
            )
            fake_quantize_input(x[index : index + 1], one, shift, 4).square().sum().backward()
            assert torch.allclose(scale.grad[index], one.grad[0])
            assert torch.allclose(zero_point.grad[index], shift.grad[0])
