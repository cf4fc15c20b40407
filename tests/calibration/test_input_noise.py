"""What rounding an input does to a layer's output, told from recorded inputs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mezzotint.calibration import input_noises, input_noises_together
from mezzotint.errors import CalibrationError
from mezzotint.measuring import InputChange
from mezzotint.models import Call
from mezzotint.plan import Choice
from mezzotint.runtime import Calibration, Smoothing, SplitInput

ACTIVATIONS = ("int8/token", "uint8/token", "int4/token", "uint8/tensor")


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


LAYERS = {
    "linear": (nn.Linear(8, 512), noise(400, 8)),
    "conv2d": (nn.Conv2d(8, 512, 3), noise(4, 8, 16, 16)),
    "conv2d in groups": (nn.Conv2d(8, 512, 1, groups=2), noise(4, 8, 16, 16)),
}


def found(layer: nn.Module, choice: Choice, x: Tensor, **tensors: Tensor) -> float:
    return input_noises(nn.Sequential(layer), {"0": choice}, [Call((x,), {})], {"0": tensors})["0"]


@pytest.mark.parametrize("activation", ["int8/token", "uint8/token", "int4/token"])
@pytest.mark.parametrize(("layer", "x"), LAYERS.values(), ids=LAYERS)
@torch.no_grad()
def test_it_is_about_the_squared_error_of_the_output(layer: nn.Module, x: Tensor, activation: str):
    choice, model = Choice("int8/channel", activation), nn.Sequential(layer)
    exact = model(x)
    with InputChange("0", choice).applied(model, Calibration()) as changed:
        error = float((changed(x) - exact).double().square().sum())
    if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
        error *= (16 / 14) ** 2  # borders count as inner positions
    assert found(layer, choice, x) == pytest.approx(error, rel=0.15)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_an_outlier_channel_raises_it_and_smoothing_lowers_it(activation: str):
    layer, x = nn.Linear(8, 16), noise(50, 8)
    x[:, 2] *= 64
    layer.weight.data[:, 2] /= 64
    exponent = torch.zeros(8, dtype=torch.int8)
    exponent[2] = 6
    plain = found(layer, Choice("int8/channel", activation), x)
    smooth = found(layer, Choice("int8/channel", activation, (Smoothing(),)), x, exponent=exponent)
    assert smooth < plain / 100


def test_each_half_of_a_split_input_is_rounded_by_itself():
    layer, x = nn.Linear(8, 16), noise(50, 8)
    x[:, :2] *= 100
    layer.weight.data[:, :2] = 0
    whole = found(layer, Choice("int8/channel", "int8/token"), x)
    halves = found(layer, Choice("int8/channel", "int8/token", (SplitInput(2),)), x)
    assert halves < whole / 100


def test_a_floating_input_makes_none():
    assert found(nn.Linear(8, 4), Choice("int8/channel"), noise(3, 8)) == 0


def test_nan_names_the_layer():
    with pytest.raises(CalibrationError, match="layer 0"):
        found(nn.Linear(8, 4), Choice("int8/channel", "int8/token"), noise(3, 8) * torch.nan)


def test_two_choices_of_a_layer_are_compared_in_one_run():
    model, x = nn.Sequential(nn.Linear(8, 16)), noise(50, 8)
    runs: list[int] = []
    model.register_forward_pre_hook(lambda *_: runs.append(1))
    asked = [({"0": Choice("int8/channel", name)}, {}) for name in ("int4/token", "int8/token")]
    together = input_noises_together(model, asked, [Call((x,), {})], label=None)
    assert len(runs) == 1
    assert together == [input_noises(model, choices, [Call((x,), {})]) for choices, _ in asked]
