"""The precision of training: 16 bits where a device computes in them, no float16 on CPUs."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn
from torch.amp import GradScaler

from mezzotint.models import Call
from mezzotint.training.optimizer import Optimizer
from mezzotint.training.options import Rates
from mezzotint.training.precision import Precision, chosen_precision, precision_of
from tests.training.students import student_of

F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
DTYPES = (F32, F16, BF16)


class TestChoice:
    @pytest.mark.parametrize(
        ("device", "dtype", "bfloat16", "wanted", "autocast", "scaled"),
        [
            ("cpu", F32, True, None, BF16, False),
            ("cpu", F32, False, None, None, False),
            ("cpu", F32, False, True, BF16, False),
            ("cpu", F32, True, False, None, False),
            ("cuda", F32, True, None, BF16, False),
            ("cuda", F32, False, None, F16, True),
            ("cuda", F32, False, True, F16, True),
            ("cuda", F32, False, False, None, False),
            ("cuda", F16, True, None, BF16, True),
            ("cuda", F16, False, False, None, True),
            ("cuda", BF16, True, False, None, False),
            ("mps", F32, True, True, None, False),
        ],
        ids=[
            "processor with bfloat16", "processor without", "processor without, wanted",
            "processor, not wanted", "GPU with bfloat16", "GPU without", "GPU without, wanted",
            "GPU, not wanted", "model in float16", "model in float16, not wanted",
            "model in bfloat16", "another device",
        ],
    )  # fmt: skip
    def test_it_follows_from_device_model_and_wish(
        self,
        device: str,
        dtype: torch.dtype,
        bfloat16: bool,
        wanted: bool | None,
        autocast: torch.dtype | None,
        scaled: bool,
    ):
        found = chosen_precision(device, dtype, bfloat16=bfloat16, wanted=wanted)
        assert found == Precision(device, autocast, scaled)

    @pytest.mark.parametrize("bfloat16", [True, False])
    @pytest.mark.parametrize("wanted", [True, False, None])
    def test_no_cpu_computes_in_float16(self, bfloat16: bool, wanted: bool | None):
        for dtype in DTYPES:
            assert chosen_precision("cpu", dtype, bfloat16=bfloat16, wanted=wanted).autocast != F16

    def test_float16_is_never_without_a_scaled_loss(self):
        for device, dtype, bfloat16, wanted in itertools.product(
            ("cpu", "cuda", "mps"), DTYPES, (True, False), (True, False, None)
        ):
            found = chosen_precision(device, dtype, bfloat16=bfloat16, wanted=wanted)
            assert found.scaled == (F16 in (dtype, found.autocast))

    def test_this_machine_has_one(self):
        found = precision_of(torch.device("cpu"), F32, None)
        assert found.autocast in (BF16, None)
        assert not found.scaled
        with found.computing():
            product = torch.ones(2, 2) @ torch.ones(2, 2)
        assert product.dtype == (found.autocast or F32)


def updated(
    denoiser: nn.Module, calls: tuple[Call, ...], scaler: GradScaler | None, updates: int = 2
) -> Optimizer:
    """The optimizer after some updates on one call's outputs."""
    student = student_of(denoiser, calls)
    optimizer = Optimizer(student, Rates(), scaler)
    for _ in range(updates):
        with student.quantized() as quantized:
            optimizer.scaled(calls[0].run(quantized).square().mean()).backward()
        optimizer.unscale()
        optimizer.step(0.0)
    return optimizer


class TestScaledLoss:
    def test_updates_are_the_same_bit_for_bit(self, denoiser: nn.Module, calls: tuple[Call, ...]):
        usual = updated(denoiser, calls, None)
        scaled = updated(denoiser, calls, GradScaler("cpu", init_scale=2.0**20))
        for name, parameter in usual.parameters.items():
            assert torch.equal(parameter, scaled.parameters[name]), name

    def test_infinite_gradients_halve_the_scale_and_change_nothing_else(
        self, denoiser: nn.Module, calls: tuple[Call, ...]
    ):
        optimizer = updated(denoiser, calls, GradScaler("cpu", init_scale=2.0**20))
        before = {name: each.detach().clone() for name, each in optimizer.parameters.items()}
        first = next(iter(optimizer.parameters.values()))
        optimizer.scaled(first.sum() * float("inf")).backward()
        optimizer.unscale()
        assert optimizer.may_overflow
        optimizer.step(0.0)
        assert float(optimizer.state()["loss.scale"]) == 2.0**19
        assert all(torch.equal(each, before[name]) for name, each in optimizer.parameters.items())

    def test_a_scale_of_one_excuses_none(self, denoiser: nn.Module, calls: tuple[Call, ...]):
        assert not updated(denoiser, calls, GradScaler("cpu", init_scale=1.0), 0).may_overflow
        assert not updated(denoiser, calls, None, 0).may_overflow

    def test_the_scale_is_taken_up_again(self, denoiser: nn.Module, calls: tuple[Call, ...]):
        known = updated(denoiser, calls, GradScaler("cpu", init_scale=2.0**20)).state()
        fresh = updated(denoiser, calls, GradScaler("cpu"), 0)
        assert fresh.misfit(known) is None
        fresh.load(known)
        found = fresh.state()
        assert {name: float(found[name]) for name in ("loss.scale", "loss.growth")} == {
            "loss.scale": 2.0**20, "loss.growth": 2.0
        }  # fmt: skip

    def test_a_state_may_go_on_where_no_scale_is_needed(
        self, denoiser: nn.Module, calls: tuple[Call, ...]
    ):
        scaled, usual = (updated(denoiser, calls, each) for each in (GradScaler("cpu"), None))
        for one, other in ((scaled, usual), (usual, scaled)):
            assert one.misfit(other.state()) is None
            one.load(other.state())
