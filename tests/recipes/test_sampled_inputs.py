"""Inputs that the search of widths sees, and how it rounds them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mezzotint.calibration import calibrated
from mezzotint.errors import CalibrationError
from mezzotint.models import Call
from mezzotint.plan import Choice, Plan
from mezzotint.recipes import sampled_inputs as module
from mezzotint.recipes.sampled_inputs import InputRounding, few_samples, sampled_inputs
from mezzotint.runtime import Calibration, StepScales, pack_layer, shape_of
from mezzotint.runtime.timestep import TimestepReader

STEPS = (1.0, 500.0)


class Denoiser(nn.Module):
    """Two layers; inputs are wider at later timesteps."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, padding=1)
        self.linear = nn.Linear(3, 4)

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        x = self.conv(sample * (1 + timestep / 100))
        return self.linear(x.movedim(1, -1))


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    torch.manual_seed(0)
    return Denoiser()


@pytest.fixture(scope="module")
def calls(denoiser: Denoiser) -> tuple[Call, ...]:
    found = []
    for index, step in enumerate(STEPS):
        args = torch.randn(6, 2, 4, 4), torch.tensor(step)
        with torch.no_grad():
            found.append(Call(args, {}, denoiser(*args), index, step))
    return tuple(found)


def choices(activation: str, *structures: object) -> dict[str, Choice]:
    return dict.fromkeys(("conv", "linear"), Choice("uint2/channel", activation, structures))


def sampled(denoiser, calls, found, activation="uint4/tensor", *structures):
    sizes = dict.fromkeys(("conv", "linear"), 1000)
    shown = choices(activation, *structures)
    return dict(sampled_inputs(denoiser, shown, calls, found, sizes))


def test_every_step_gives_some_samples_and_says_which(denoiser, calls):
    found = sampled(denoiser, calls, Calibration())
    assert found["conv"].x.shape == (12, 2, 4, 4)
    assert found["linear"].x.shape[1] == 3
    for each in found.values():
        assert set(each.timesteps.tolist()) == set(STEPS)
        assert len(each.timesteps) == len(each.x)


def test_samples_are_the_layers_own_inputs(denoiser, calls):
    found = sampled(denoiser, calls, Calibration())["conv"]
    late = found.x[found.timesteps == STEPS[1]]
    assert torch.allclose(late, calls[1].args[0] * 6)


def test_steps_walk_over_the_samples_of_a_batch(calls, monkeypatch):
    monkeypatch.setattr(module, "SAMPLES", 4)
    few = few_samples({1.0: [calls[0]], 500.0: [calls[1]]})
    assert torch.equal(few[0][1].args[0], calls[0].args[0][:2])
    assert torch.equal(few[1][1].args[0], calls[1].args[0][2:4])


def test_little_memory_changes_nothing(denoiser, calls, monkeypatch):
    whole = sampled(denoiser, calls, Calibration())
    monkeypatch.setattr(module, "MOST_BYTES", 1)
    parts = sampled(denoiser, calls, Calibration())
    assert all(torch.equal(whole[name].x, parts[name].x) for name in whole)


def test_rows_of_a_linear_are_bounded(denoiser, calls, monkeypatch):
    monkeypatch.setattr(module, "MOST_ROWS", 10)
    assert len(sampled(denoiser, calls, Calibration())["linear"].x) == 10


def test_without_a_timestep_all_samples_are_of_one_step():
    layer = nn.Sequential(nn.Linear(2, 3))
    x = torch.randn(5, 2)
    call = Call((x,), {}, layer(x).detach())
    shown = {"0": Choice("uint2/channel", "uint4/tensor")}
    ((_, found),) = sampled_inputs(layer, shown, [call], Calibration(), {"0": 10})
    assert torch.equal(found.x, x)


def test_a_layer_without_samples_is_named():
    layers = nn.ModuleDict({"used": nn.Linear(2, 3), "other": nn.Linear(2, 3)})
    layers.forward = layers["used"].__call__
    call = Call((torch.randn(5, 2),), {}, torch.randn(5, 3))
    shown = dict.fromkeys(layers, Choice("uint2/channel", "uint4/tensor"))
    found = sampled_inputs(layers, shown, [call], Calibration(), dict.fromkeys(layers, 10))
    with pytest.raises(
        CalibrationError, match=r"layer other: none of the sampled calls .*; sample"
    ):
        dict(found)


@pytest.mark.parametrize(
    ("activation", "structures"),
    [("uint4/step", (StepScales(2),)), ("uint4/tensor", ()), ("uint4/token", ()), ("float", ())],
    ids=["step", "tensor", "token", "float"],
)
def test_inputs_are_rounded_as_the_packed_layer_rounds_them(
    denoiser, calls, activation, structures
):
    plan = Plan(choices(activation, *structures))
    found = calibrated(denoiser, plan, calls)
    for name, each in sampled(denoiser, calls, found, activation, *structures).items():
        layer = denoiser.get_submodule(name)
        rounding = InputRounding.of(name, plan[name], shape_of(layer), each.timesteps, found)
        rounded = rounding(each.x)
        expected = expected_rounding(denoiser, plan, found, name, each)
        assert torch.allclose(rounded, expected, atol=1e-5)
        assert (activation == "float") == torch.equal(rounded, each.x)


def expected_rounding(denoiser, plan, found, name, each):
    """What a packed layer whose weight picks one input out makes of it."""
    layer = denoiser.get_submodule(name)
    width = layer.weight.shape[1]
    one = nn.Linear(width, width) if name == "linear" else nn.Conv2d(width, width, 1)
    with torch.no_grad():
        one.bias.zero_()
        one.weight.copy_(torch.eye(width).view(one.weight.shape))
    exact = Choice("int8/channel/float32", plan[name].activation, plan[name].structures)
    packed, reader = pack_layer(name, one, Plan({name: exact}), found), TimestepReader()
    packed.reader = reader
    outputs = []
    for row, step in zip(each.x, each.timesteps, strict=True):
        with reader.holding(step):
            outputs.append(packed(row.unsqueeze(0)))
    return torch.cat(outputs)
