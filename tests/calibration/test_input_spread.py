"""Peak and deviation of what every layer's quantizers see."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import mezzotint as mz
from mezzotint.calibration import InputSpread, input_spreads
from mezzotint.errors import CalibrationError
from mezzotint.models import Call


def spread(*inputs: torch.Tensor, choice: mz.Choice | None = None) -> InputSpread:
    module = nn.Sequential(nn.Linear(inputs[0].shape[-1], 2))
    calls = [Call((x,), {}) for x in inputs]
    chosen = choice or mz.Choice("int4/channel")
    return input_spreads(module, {"0": chosen}, calls)["0"]


def test_it_is_that_of_all_values_of_all_calls():
    x, y = torch.randn(3, 8), 2 + torch.randn(5, 8)
    both = torch.cat((x, y))
    found = spread(x, y)
    assert found.peak == pytest.approx(float(both.abs().max()))
    assert found.deviation == pytest.approx(float(both.std(correction=0)), rel=1e-5)
    assert found.ratio == found.peak / found.deviation


def test_one_value_far_out_has_a_high_ratio():
    x = torch.randn(64, 64)
    assert spread(x).ratio < 6
    x[0, 0] = -100.0
    assert spread(x).ratio > 30


def test_constants_have_no_deviation():
    assert spread(torch.full((2, 8), 3.0)).ratio == math.inf
    assert spread(torch.zeros(2, 8)).ratio == 0


def test_what_no_quantizer_sees_does_not_count():
    x = torch.randn(2, 5, 8)
    x[:, 0] = 1000.0
    module, choice = (
        nn.Sequential(nn.Linear(8, 2)),
        mz.Choice("int4/channel", structures=(mz.ConstantTokens(1),)),
    )
    constant = {"0": {"constant": module[0](x[0, :1]).detach()}}
    found = input_spreads(module, {"0": choice}, [Call((x,), {})], constant)["0"]
    assert found.peak == pytest.approx(float(x[:, 1:].abs().max()))


def test_nan_names_the_layer():
    with pytest.raises(CalibrationError, match="layer 0"):
        spread(torch.full((1, 8), torch.nan))
