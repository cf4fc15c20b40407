"""Narrow codes of calibrated scales, one for each timestep, in exact 8-bit products."""

import pytest
import torch
from torch import Tensor, nn

from mezzotint.plan import Choice, Plan
from mezzotint.runtime import Calibration, InputRange, StepScales, executions, pack_layer
from tests.runtime.layers import conv, linear, noise
from tests.runtime.stepped import ENCODING, batch, packed_denoiser, step_tables

pytestmark = pytest.mark.usefixtures("either_product", "either_way")

WEIGHTS = ("int4/channel", "uint3/channel", "int8/channel", "mixed/int2:2,int3:4,int8:1")
EITHER = pytest.mark.parametrize(
    ("layer", "x"),
    [(linear(19, 7), noise(4, 5, 19)), (conv(4, 7, padding=1), noise(4, 4, 6, 6))],
    ids=["linear", "conv2d"],
)


@EITHER
@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("width", [2, 4, 6, 8])
def test_one_step_equals_a_static_format(layer: nn.Module, x: Tensor, weight: str, width: int):
    plan = Plan({"0": Choice(weight, f"uint{width}/tensor")}, encoding=ENCODING)
    static = pack_layer("0", layer, plan, Calibration({"0": (InputRange(-1.5, 3.0),)}))
    tables = {
        "timestep": torch.zeros(1, dtype=torch.int32),
        "step_scale": static.input_scale,
        "step_zero_point": static.input_zero_point,
    }
    plan = Plan({"0": Choice(weight, f"uint{width}/step", (StepScales(1),))}, encoding=ENCODING)
    found = pack_layer("0", layer, plan, Calibration(tensors={"0": tables}))
    with found.reader.holding(3):
        assert torch.equal(found(x), static(x))


@pytest.mark.parametrize("weight", ["int4/channel", "uint3/channel", "uint6/channel"])
@pytest.mark.parametrize("width", [4, 6, 8])
def test_samples_of_mixed_timesteps_are_those_of_single_calls(weight: str, width: int):
    tables = step_tables(scales=(0.02, 0.05, 0.1), zero_points=(3, 15, 8))
    denoiser, x = packed_denoiser(weight, f"uint{width}/step", tables), batch(4)
    timesteps = torch.tensor([900, 10, 480, 20])
    singles = [denoiser(x[i : i + 1], timesteps[i]) for i in range(4)]
    assert {each.arithmetic for each in executions(denoiser)} == {"int8"}
    assert torch.equal(denoiser(x, timesteps), torch.cat(singles))
