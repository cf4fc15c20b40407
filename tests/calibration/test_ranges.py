import math

import pytest
import torch
from torch import Tensor, nn

from mezzotint.calibration import input_ranges
from mezzotint.errors import CalibrationError
from mezzotint.models import Call
from mezzotint.runtime import InputRange


class _Denoiser(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3)
        self.unused = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu() + 1)


def call(*values: float) -> Call:
    return Call((torch.tensor([list(values)]),), {})


def hooks(module: nn.Module) -> int:
    return sum(len(m._forward_pre_hooks) for m in module.modules())


def test_ranges_span_all_calls():
    calls = (call(-1.0, 0.5, 2.0), call(0.0, 3.5, -0.25))
    assert input_ranges(_Denoiser(), ["first"], calls) == {"first": InputRange(-1.0, 3.5)}


def test_each_layer_has_its_own():
    denoiser = _Denoiser()
    found = input_ranges(denoiser, ["first", "second"], [call(-5.0, 0.0, 5.0)])
    assert list(found) == ["first", "second"]
    assert found["second"].low >= 1.0


def test_a_range_may_lie_on_one_side_of_zero():
    assert input_ranges(_Denoiser(), ["first"], [call(2.0, 3.0, 4.0)]) == {
        "first": InputRange(2.0, 4.0)
    }


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_inputs_give_plain_floats(dtype: torch.dtype):
    found = input_ranges(_Denoiser().to(dtype), ["first"], [call(-1.0, 0.0, 2.0).to(dtype=dtype)])
    assert found == {"first": InputRange(-1.0, 2.0)}


def test_no_gradients_are_recorded_and_nothing_is_left_behind():
    denoiser = _Denoiser()
    input_ranges(denoiser, ["first", "second"], [call(0.0, 1.0, 2.0)])
    assert hooks(denoiser) == 0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_name_the_layer(value: float):
    denoiser = _Denoiser()
    with pytest.raises(CalibrationError, match="layer first: its input holds NaN"):
        input_ranges(denoiser, ["second", "first"], [call(0.0, value, 1.0)])
    assert hooks(denoiser) == 0


def test_the_first_layer_that_goes_wrong_is_named():
    denoiser = _Denoiser()
    denoiser.first.weight.data[0, 0] = math.nan
    with pytest.raises(CalibrationError, match="layer second"):
        input_ranges(denoiser, ["first", "second"], [call(0.0, 1.0, 2.0)])


def test_a_layer_that_no_call_reaches_is_named():
    with pytest.raises(CalibrationError, match="layer unused: no recorded call reaches it"):
        input_ranges(_Denoiser(), ["first", "unused"], [call(0.0, 1.0, 2.0)])


def test_without_calls_no_layer_is_reached():
    with pytest.raises(CalibrationError, match="layer first"):
        input_ranges(_Denoiser(), ["first"], [])


def test_a_name_that_does_not_exist_leaves_no_hooks_behind():
    denoiser = _Denoiser()
    with pytest.raises(AttributeError):
        input_ranges(denoiser, ["first", "missing"], [call(0.0, 1.0, 2.0)])
    assert hooks(denoiser) == 0
