"""Moments of inputs, gathered in recorded calls."""

from __future__ import annotations

import os

import pytest
import torch
from torch import Tensor, nn

from mezzotint.calibration import gathered_sums, input_moments
from mezzotint.calibration.gram_matrices import MomentsOf, moments_together
from mezzotint.errors import CalibrationError, CalibrationWarning, PlanError
from mezzotint.models import Call
from mezzotint.plan import Choice
from mezzotint.rounding import InputMoments
from mezzotint.runtime import ConstantTokens, SplitInput
from tests.devices import DEVICES

W4 = Choice("int4/channel")


class _Denoiser(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 6, 3, padding=1, stride=2)
        self.grouped = nn.Conv2d(6, 6, 3, groups=2)
        self.tokens = nn.Linear(6, 5)
        self.unused = nn.Linear(3, 3)
        self.norm = nn.LayerNorm(5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.grouped(self.conv(x).relu())
        return self.norm(self.tokens(x.flatten(2).transpose(1, 2)))


LAYERS = ("conv", "grouped", "tokens")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def denoiser() -> _Denoiser:
    torch.manual_seed(0)
    return _Denoiser()


CALLS = tuple(Call((noise(2, 4, 9, 9, seed=seed),), {}) for seed in range(3))


def gathered(denoiser: nn.Module, *names: str, **options: object) -> dict:
    choices = dict.fromkeys(names, W4)
    return input_moments(denoiser, choices, CALLS, **{"grams": True} | options)


def inputs_of(denoiser: nn.Module, name: str) -> Tensor:
    """All inputs of a layer in all calls."""
    seen: list[Tensor] = []
    layer = denoiser.get_submodule(name)
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        for call in CALLS:
            call.run(denoiser)
    hook.remove()
    return torch.cat(seen)


class _WithoutGradients(_Denoiser):
    @torch.inference_mode()
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


def test_layers_that_run_in_inference_mode_have_the_same():
    torch.manual_seed(0)
    plain = _Denoiser()
    sealed = _WithoutGradients()
    sealed.load_state_dict(plain.state_dict())
    (expected,), (found,) = (gathered(each, "conv")["conv"] for each in (plain, sealed))
    assert torch.equal(found.blocks[0], expected.blocks[0])
    assert torch.equal(found.mean, expected.mean)


def test_they_are_averages_over_all_rows(denoiser: nn.Module):
    (found,) = gathered(denoiser, "tokens")["tokens"]
    rows = inputs_of(denoiser, "tokens").flatten(0, 1)
    assert found.count == len(rows)
    torch.testing.assert_close(found.blocks[0][0], rows.T @ rows / len(rows))
    torch.testing.assert_close(found.mean[0], rows.mean(0))


def test_convolutions_average_their_windows(denoiser: nn.Module):
    (found,) = gathered(denoiser, "conv")["conv"]
    windows = nn.functional.unfold(inputs_of(denoiser, "conv"), 3, padding=1, stride=2)
    rows = windows.transpose(1, 2).flatten(0, 1)
    assert found.blocks[0].shape == (1, 36, 36)
    torch.testing.assert_close(found.blocks[0][0], rows.T @ rows / len(rows))


def test_groups_have_matrices_of_their_own(denoiser: nn.Module):
    (found,) = gathered(denoiser, "grouped")["grouped"]
    windows = nn.functional.unfold(inputs_of(denoiser, "grouped")[:, 3:], 3)
    rows = windows.transpose(1, 2).flatten(0, 1)
    assert (found.groups, found.columns) == (2, 27)
    torch.testing.assert_close(found.blocks[0][1], rows.T @ rows / len(rows))
    torch.testing.assert_close(found.mean[1], rows.mean(0))


def test_means_alone_take_no_matrices(denoiser: nn.Module):
    (found,) = gathered(denoiser, "conv", grams=False)["conv"]
    (whole,) = gathered(denoiser, "conv")["conv"]
    assert found.blocks == ()
    assert torch.equal(found.mean, whole.mean)


def test_each_part_of_a_split_has_its_own(denoiser: nn.Module):
    split = {"conv": Choice("int4/channel", structures=(SplitInput(3),))}
    first, second = input_moments(denoiser, split, CALLS, grams=True)["conv"]
    (whole,) = gathered(denoiser, "conv")["conv"]
    torch.testing.assert_close(first.blocks[0], whole.blocks[0][:, :27, :27])
    torch.testing.assert_close(second.blocks[0], whole.blocks[0][:, 27:, 27:])


def test_constant_tokens_do_not_count(denoiser: nn.Module):
    constant = {"tokens": Choice("int4/channel", structures=(ConstantTokens(1),))}
    tensors = {"tokens": {"constant": torch.zeros(1, 5, dtype=torch.int32)}}
    (found,) = input_moments(denoiser, constant, CALLS, grams=True, tensors=tensors)["tokens"]
    rows = inputs_of(denoiser, "tokens")[:, 1:].flatten(0, 1)
    torch.testing.assert_close(found.blocks[0][0], rows.T @ rows / len(rows))


def test_of_many_rows_some_are_taken(denoiser: nn.Module, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gathered_sums, "_FEWEST_ROWS", 30)
    monkeypatch.setattr(gathered_sums, "_ROWS_PER_COLUMN", 0)
    (found,) = gathered(denoiser, "conv")["conv"]
    assert found.count == 30
    (again,) = gathered(denoiser, "conv")["conv"]
    assert torch.equal(found.blocks[0], again.blocks[0])


def test_large_layers_have_several_matrices_of_whole_channels(
    denoiser: nn.Module, monkeypatch: pytest.MonkeyPatch
):
    (whole,) = gathered(denoiser, "conv")["conv"]
    monkeypatch.setattr(gathered_sums, "LARGEST", 20)
    (found,) = gathered(denoiser, "conv")["conv"]
    assert [block.shape for block in found.blocks] == [(1, 18, 18), (1, 18, 18)]
    torch.testing.assert_close(found.blocks[1], whole.blocks[0][:, 18:, 18:])


class TestMemory:
    def passes(self, denoiser: nn.Module, memory: int) -> tuple[int, dict]:
        """Runs of the denoiser per call, and what was found."""
        runs = []
        hook = denoiser.register_forward_pre_hook(lambda *_: runs.append(1))
        found = gathered(denoiser, *LAYERS, memory=memory)
        hook.remove()
        return len(runs) // len(CALLS), found

    @pytest.mark.parametrize(
        ("memory", "passes"), [(10**6, 1), (4 * (36**2 + 2 * 27**2), 2), (1, 3)]
    )
    def test_layers_are_gathered_as_there_is_room(
        self, denoiser: nn.Module, memory: int, passes: int
    ):
        assert self.passes(denoiser, memory)[0] == passes

    def test_several_passes_find_the_same(self, denoiser: nn.Module):
        at_once, apart = (self.passes(denoiser, memory)[1] for memory in (10**6, 1))
        assert list(at_once) == list(apart) == list(LAYERS)
        for name in LAYERS:
            assert torch.equal(at_once[name][0].blocks[0], apart[name][0].blocks[0])

    def test_where_there_is_no_room_on_disk_layers_are_not_half_gathered(
        self, denoiser: nn.Module, monkeypatch: pytest.MonkeyPatch
    ):
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "posix_fallocate", full)
        with pytest.raises(CalibrationError, match=r"no room for 5,184 bytes.*TMPDIR"):
            self.passes(denoiser, 1)


def named(name: str, x: Tensor) -> InputMoments:
    class _One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.add_module(name, nn.Linear(x.shape[-1], 2))

        def forward(self, x: Tensor) -> Tensor:
            return self.get_submodule(name)(x)

    calls = [Call((torch.ones(1, x.shape[-1]),), {}), Call((x,), {})]
    (found,) = input_moments(_One(), {name: W4}, calls, grams=True)[name]
    return found


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_unusable_inputs_name_layer_and_call(value: float):
    with pytest.raises(
        CalibrationError, match=r"layer fc: its input holds NaN or infinite.*call 2 of 2"
    ):
        named("fc", torch.tensor([[1.0, value]]))


def test_inputs_whose_squares_overflow_name_the_layer():
    with pytest.raises(CalibrationError, match=r"layer fc: the squares of its inputs overflow"):
        named("fc", torch.tensor([[1.0, 1e30]]))


def test_large_sums_keep_their_digits():
    x = 1000 + noise(20_000, 2)
    found = named("fc", x)
    exact = torch.cat([torch.ones(1, 2), x]).double()
    assert found.count == 4097
    torch.testing.assert_close(found.mean[0].double(), exact.mean(0), rtol=1e-3, atol=0)


def test_a_layer_that_no_call_reaches_is_named(denoiser: nn.Module):
    with pytest.raises(CalibrationError, match=r"layer unused: no recorded call reaches it"):
        gathered(denoiser, "unused")


def test_another_layer_than_linear_or_conv_is_named(denoiser: nn.Module):
    with pytest.raises(PlanError, match="layer norm is a LayerNorm, not a Linear or Conv2d"):
        gathered(denoiser, "norm")


def test_a_structure_that_does_not_fit_is_named(denoiser: nn.Module):
    choice = {"conv": Choice("int4/channel", structures=(SplitInput(9),))}
    with pytest.raises(PlanError, match="layer conv: split: first is 9"):
        input_moments(denoiser, choice, CALLS, grams=True)


def test_a_single_sample_of_many_inputs_is_warned_of():
    with pytest.warns(CalibrationWarning, match=r"layer fc: 2 input\(s\) .* 2000 go together"):
        named("fc", torch.ones(1, 2000))


@pytest.mark.parametrize("device", DEVICES)
def test_moments_are_gathered_where_the_model_is_and_kept_on_the_cpu(device: str):
    model = nn.Sequential(nn.Linear(6, 5)).to(device)
    rows = noise(2, 50, 6)
    found = input_moments(model, {"0": W4}, [Call((rows.to(device),), {})], grams=True)
    (part,), exact = found["0"], rows.flatten(0, 1).double()
    assert {each.device.type for each in (*part.blocks, part.mean)} == {"cpu"}
    torch.testing.assert_close(part.blocks[0][0], (exact.T @ exact / 100).float())
    torch.testing.assert_close(part.mean[0], exact.mean(0).float())


def test_two_kinds_of_structures_are_gathered_in_the_same_runs(denoiser):
    plain, split = {"conv": W4, "tokens": W4}, {"tokens": W4.with_structures(SplitInput(2))}
    runs: list[int] = []
    hook = denoiser.conv.register_forward_pre_hook(lambda *_: runs.append(1))
    asked = [MomentsOf(plain), MomentsOf(split)]
    together = moments_together(denoiser, asked, CALLS, grams=True)
    hook.remove()
    assert len(runs) == len(CALLS)
    for choices, found in zip((plain, split), together, strict=True):
        alone = input_moments(denoiser, choices, CALLS, grams=True)
        assert found.keys() == alone.keys()
        for name, parts in alone.items():
            for one, other in zip(parts, found[name], strict=True):
                assert torch.equal(one.mean, other.mean)
                assert all(map(torch.equal, one.blocks, other.blocks))
