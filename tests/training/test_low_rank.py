"""LoRA inside the rounding."""

import pytest
import torch
from torch import Tensor, nn

from mezzotint.formats import MINMAX, parse_weight_format
from mezzotint.models import Call
from mezzotint.rounding import fake_quantize
from mezzotint.training import Training
from mezzotint.training.low_rank import LowRank, Weight
from tests.training.students import output, student_of, window_of

SHAPES = pytest.mark.parametrize(
    ("shape", "down", "up"),
    [
        ((24, 16), (8, 16), (24, 8)),
        ((24, 16, 3, 3), (8, 16, 3, 3), (24, 8, 3, 3)),
        ((5, 16), (5, 16), (5, 5)),
        ((24, 3, 1, 1), (3, 3, 1, 1), (24, 3, 1, 1)),
    ],
    ids=["linear", "convolution", "few outputs", "few inputs"],
)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def low_rank(weight: Tensor, rank: int = 8) -> LowRank:
    return LowRank(weight, rank, torch.Generator().manual_seed(0))


class TestLowRank:
    @SHAPES
    def test_shapes(self, shape: tuple[int, ...], down: tuple[int, ...], up: tuple[int, ...]):
        lora = low_rank(noise(*shape))
        assert (tuple(lora.down.shape), tuple(lora.up.shape)) == (down, up)

    @SHAPES
    def test_it_starts_without_a_change(
        self, shape: tuple[int, ...], down: tuple[int, ...], up: tuple[int, ...]
    ):
        weight = noise(*shape)
        lora = low_rank(weight)
        assert torch.equal(lora(weight), weight)
        assert float(lora.down.detach().abs().min()) > 0

    def test_each_kernel_position_is_a_product_of_its_own(self):
        lora = low_rank(noise(6, 5, 3, 2), rank=2)
        nn.init.normal_(lora.up)
        change = lora.change()
        for y in range(3):
            for x in range(2):
                expected = lora.up[:, :, y, x] @ lora.down[:, :, y, x]
                assert torch.allclose(change[:, :, y, x], expected, atol=1e-6)

    @pytest.mark.parametrize("shape", [(24, 16), (24, 16, 3, 3)], ids=["linear", "convolution"])
    def test_the_start_from_an_error_is_its_best_part_of_that_rank(self, shape: tuple[int, ...]):
        error = noise(*shape)
        lora = low_rank(error, rank=3)
        lora.start_from(error)
        positions = (
            lora.change().detach().flatten(2) if len(shape) == 4 else lora.change()[..., None]
        )
        wanted = error.flatten(2) if len(shape) == 4 else error[..., None]
        for part, whole in zip(positions.unbind(-1), wanted.unbind(-1), strict=True):
            assert int(torch.linalg.matrix_rank(part, rtol=1e-4)) == 3
            left = torch.linalg.svdvals(whole)[3:].square().sum()
            assert torch.allclose((whole - part).square().sum(), left, rtol=1e-3)


class TestInsideTheRounding:
    def test_the_sum_is_rounded(self):
        weight = noise(12, 20)
        fmt = parse_weight_format("uint3/channel")
        grid = fmt.grid(weight, MINMAX)
        held = Weight(weight, trained=False, lora=low_rank(weight))
        nn.init.normal_(held.lora.up)
        rounded = fake_quantize(held(), grid)
        assert torch.equal(rounded, fake_quantize(weight + held.lora.change(), grid))
        assert not torch.equal(rounded, fake_quantize(weight, grid))

    def test_an_svd_start_differs_from_that_of_zeros(
        self, denoiser: nn.Module, calls: tuple[Call, ...]
    ):
        losses = {}
        for start in ("zero", "svd"):
            student = student_of(denoiser, calls, lora_init=start)
            for name, parameter in student.parameters().items():
                if name.endswith("lora.up"):
                    assert bool(parameter.any()) == (start == "svd")
            losses[start] = float(window_of(student, calls, Training(steps=1)).main().detach())
        assert losses["svd"] != pytest.approx(losses["zero"], rel=1e-3)

    def test_every_seed_draws_its_own_factors(self, denoiser: nn.Module, calls: tuple[Call, ...]):
        downs = [
            next(p for n, p in student_of(denoiser, calls, seed=seed).parameters().items()
                 if n.endswith("down"))
            for seed in (0, 0, 1)
        ]  # fmt: skip
        assert torch.equal(downs[0], downs[1])
        assert not torch.equal(downs[0], downs[2])

    def test_it_changes_the_output(self, denoiser: nn.Module, calls: tuple[Call, ...]):
        student = student_of(denoiser, calls)
        before = output(student, calls[0])
        with torch.no_grad():
            for name, parameter in student.parameters().items():
                if name.endswith("lora.up"):
                    parameter.add_(0.1)
        assert not torch.equal(output(student, calls[0]), before)
