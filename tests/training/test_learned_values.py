"""Learned grids and inputs: what they are stored as, and where they start."""

import pytest
import torch
from torch import Tensor

from mezzotint.formats import MINMAX, ActivationFormat, MixedFormat, from_bits, parse_weight_format
from mezzotint.runtime import InputQuantizer, Linear
from mezzotint.training.learned_grid import LearnedGrid, into_cells, mean_step
from mezzotint.training.learned_inputs import LearnedInput

FORMATS = pytest.mark.parametrize(
    "name",
    [
        "uint2/channel",
        "int3/tensor",
        "uint3/group8",
        "kmeans2/channel",
        "lut3/channel",
        "mixed/kmeans1:2,uint2:5,uint3:5",
    ],
)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def grid_of(name: str, weight: Tensor):
    fmt = parse_weight_format(name)
    if isinstance(fmt, MixedFormat):
        return fmt.grid(weight, MINMAX, order=torch.randperm(len(weight)))
    return fmt.grid(weight, MINMAX)


class TestLearnedGrid:
    @FORMATS
    def test_it_starts_as_the_grid_that_is_found(self, name: str):
        weight = noise(12, 24)
        grid = grid_of(name, weight)
        expected = grid.values(grid.nearest(weight))
        assert torch.allclose(LearnedGrid(grid)(weight), expected, rtol=1e-5)

    @FORMATS
    @pytest.mark.parametrize("keeps", [False, True], ids=["rounded", "codes kept"])
    def test_all_that_is_learned_gets_a_gradient(self, name: str, keeps: bool):
        weight = 1.5 * noise(12, 24)
        grid = grid_of(name, noise(12, 24))
        learned = LearnedGrid(grid, grid.nearest(weight) if keeps else None)
        (learned(weight) * noise(12, 24, seed=1)).sum().backward()
        found = {name: parameter.grad for name, parameter in learned.learned.items()}
        assert found
        assert all(bool(gradient.any()) for gradient in found.values())

    def test_kept_codes_leave_zero_points_alone(self):
        grid = grid_of("uint2/channel", noise(12, 24))
        assert "zero_point" in LearnedGrid(grid).learned
        assert "zero_point" not in LearnedGrid(grid, grid.nearest(noise(12, 24))).learned

    @FORMATS
    def test_a_weight_is_moved_to_the_codes_that_it_is_to_have(self, name: str):
        weight = noise(12, 24)
        grid = grid_of(name, weight)
        codes = grid.nearest(weight + 0.5 * noise(12, 24, seed=1))
        moved = into_cells(weight, grid, codes)
        assert torch.equal(grid.nearest(moved), codes)
        same = grid.nearest(weight) == codes
        assert torch.equal(moved[same], weight[same])
        assert not torch.equal(moved, grid.values(codes))

    def test_a_weight_that_is_nearest_already_is_not_copied(self):
        weight = noise(12, 24)
        grid = grid_of("uint2/channel", weight)
        assert into_cells(weight, grid, grid.nearest(weight)).data_ptr() == weight.data_ptr()

    @pytest.mark.parametrize("name", ["uint3/channel", "lut3/channel", "kmeans3/channel"])
    def test_the_mean_step_is_about_what_rounding_takes(self, name: str):
        weight = noise(12, 500)
        grid = grid_of(name, weight)
        error = (grid.values(grid.nearest(weight)) - weight).square().mean().sqrt()
        assert 0.5 < float(error) * 12**0.5 / mean_step(grid) < 1.5

    def test_the_mean_step_of_segments_is_that_of_their_rows(self):
        weight = noise(12, 24)
        grid = grid_of("mixed/uint2:4,uint3:8", weight)
        assert mean_step(grid) == pytest.approx(float(grid.parameters["scale"].mean()), rel=1e-6)


UNSIGNED, SIGNED = ActivationFormat(4, False, "step"), ActivationFormat(8, True, "step")


def table(activation: ActivationFormat) -> LearnedInput:
    zero_point = torch.tensor([3.0, 5.0, 9.0]) * (not activation.symmetric)
    timesteps = torch.tensor([100.0, 500.0, 900.0])
    return LearnedInput(activation, torch.tensor([0.1, 0.2, 0.4]), zero_point, timesteps)


@pytest.mark.parametrize("activation", [UNSIGNED, SIGNED], ids=str)
class TestLearnedInput:
    @pytest.mark.parametrize(("now", "index"), [(0.0, 0), (290.0, 0), (310.0, 1), (999.0, 2)])
    def test_it_rounds_by_the_nearest_step(
        self, activation: ActivationFormat, now: float, index: int
    ):
        learned, x = table(activation), noise(4, 6)
        shift = (torch.tensor([3.0, 5.0, 9.0]) * (not activation.symmetric))[index : index + 1]
        scale = torch.tensor([0.1, 0.2, 0.4])[index : index + 1]
        expected = InputQuantizer(activation, scale, shift).rounded(x, Linear())
        assert torch.allclose(learned(x, lambda: torch.tensor([now])), expected, atol=1e-6)

    def test_samples_of_other_steps_take_their_own(self, activation: ActivationFormat):
        learned, x = table(activation), noise(4, 6)
        times = torch.tensor([900.0, 100.0])
        apart = [learned(x[2 * i : 2 * i + 2], lambda i=i: times[i : i + 1]) for i in range(2)]
        assert torch.equal(learned(x, lambda: times), torch.cat(apart))

    def test_only_the_step_that_is_taken_learns(self, activation: ActivationFormat):
        learned = table(activation)
        learned(3 * noise(4, 6), lambda: torch.tensor([500.0])).square().sum().backward()
        trained = [each for each in learned.parameters() if each is not None]
        assert len(trained) == 1 + (not activation.symmetric)
        for parameter in trained:
            assert bool(parameter.grad[1])
            assert not bool(parameter.grad[[0, 2]].any())

    def test_tables_hold_positive_scales_and_whole_zero_points(self, activation: ActivationFormat):
        learned = table(activation)
        with torch.no_grad():
            for parameter in learned.parameters():
                parameter.add_(torch.tensor([-40.3, 7.4, 50.0]))
        tables = learned.tables()
        scale = from_bits(tables["step_scale"], torch.float32)
        assert bool(((scale > 0) & scale.isfinite()).all())
        assert torch.equal(scale, learned.scale)
        low, high = (0, 0) if activation.symmetric else (0, activation.limits[1])
        assert tables["step_zero_point"].tolist() == [low, min(12, high), high]

    def test_the_range_of_a_static_input_gives_its_scale_again(self, activation: ActivationFormat):
        static = ActivationFormat(activation.width, activation.symmetric, "tensor")
        shift = torch.tensor([0.0 if static.symmetric else 7.0])
        learned = LearnedInput(static, torch.tensor([0.137]), shift)
        found = learned.range()
        scale, zero_point = static.range_parameters(found.low, found.high, torch.device("cpu"))
        assert float(scale) == pytest.approx(float(learned.scale.detach()), rel=1e-6)
        assert torch.equal(zero_point, shift)


def test_an_input_that_all_samples_share_is_rounded_once():
    """Such as position embeddings: one row, under the timesteps of a batch."""
    fmt = ActivationFormat(4, False, "step")
    scale, zero_point = torch.tensor([0.1, 0.5]), torch.tensor([3.0, 8.0])
    learned = LearnedInput(fmt, scale, zero_point, torch.tensor([10.0, 900.0]))
    x = noise(1, 5)
    assert torch.equal(learned(x, lambda: torch.tensor([900.0, 900.0])),
                       learned(x, lambda: torch.tensor([900.0])))  # fmt: skip
