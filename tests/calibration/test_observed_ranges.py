import math

import pytest
import torch
from torch import Tensor, nn

from mezzotint.calibration import input_ranges
from mezzotint.errors import CalibrationError, PlanError, UsageError
from mezzotint.models import Call
from mezzotint.plan import Choice
from mezzotint.runtime import ConstantTokens, InputRange, SplitInput

W4 = Choice("int4/channel")
FIRST = {"first": W4}
BOTH = {"first": W4, "second": W4}


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
    assert input_ranges(_Denoiser(), FIRST, calls) == {"first": (InputRange(-1.0, 3.5),)}


def test_each_layer_has_its_own():
    denoiser = _Denoiser()
    found = input_ranges(denoiser, BOTH, [call(-5.0, 0.0, 5.0)])
    assert list(found) == ["first", "second"]
    assert found["second"][0].low >= 1.0


def test_a_range_may_lie_on_one_side_of_zero():
    assert input_ranges(_Denoiser(), FIRST, [call(2.0, 3.0, 4.0)]) == {
        "first": (InputRange(2.0, 4.0),)
    }


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_inputs_give_plain_floats(dtype: torch.dtype):
    found = input_ranges(_Denoiser().to(dtype), FIRST, [call(-1.0, 0.0, 2.0).to(dtype=dtype)])
    assert found == {"first": (InputRange(-1.0, 2.0),)}


def test_no_gradients_are_recorded_and_nothing_is_left_behind():
    denoiser = _Denoiser()
    input_ranges(denoiser, BOTH, [call(0.0, 1.0, 2.0)])
    assert hooks(denoiser) == 0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_name_the_layer(value: float):
    denoiser = _Denoiser()
    with pytest.raises(CalibrationError, match="layer first: its input holds NaN"):
        input_ranges(denoiser, {"second": W4, "first": W4}, [call(0.0, value, 1.0)])
    assert hooks(denoiser) == 0


def test_the_first_layer_that_goes_wrong_is_named():
    denoiser = _Denoiser()
    denoiser.first.weight.data[0, 0] = math.nan
    with pytest.raises(CalibrationError, match="layer second"):
        input_ranges(denoiser, BOTH, [call(0.0, 1.0, 2.0)])


def test_a_layer_that_no_call_reaches_is_named():
    with pytest.raises(CalibrationError, match="layer unused: no recorded call reaches it"):
        input_ranges(_Denoiser(), {"first": W4, "unused": W4}, [call(0.0, 1.0, 2.0)])


def test_without_calls_no_layer_is_reached():
    with pytest.raises(CalibrationError, match="layer first"):
        input_ranges(_Denoiser(), FIRST, [])


def test_a_name_that_does_not_exist_leaves_no_hooks_behind():
    denoiser = _Denoiser()
    with pytest.raises(AttributeError):
        input_ranges(denoiser, {"first": W4, "missing": W4}, [call(0.0, 1.0, 2.0)])
    assert hooks(denoiser) == 0


def test_only_linears_and_convolutions_have_ranges():
    with pytest.raises(PlanError, match="layer 0 is a ReLU, not a Linear or Conv2d"):
        input_ranges(nn.Sequential(nn.ReLU()), {"0": W4}, [])


class _Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.shared(x) + self.shared(10 * x)


class TestMomentum:
    CALLS = (call(-1.0, 0.0, 1.0), call(-3.0, 0.0, 2.0), call(-1.0, 1.0, 9.0))

    def test_the_average_starts_with_the_first_call(self):
        found = input_ranges(_Denoiser(), FIRST, self.CALLS[:1], momentum=0.95)
        assert found == {"first": (InputRange(-1.0, 1.0),)}

    def test_each_call_moves_it_once(self):
        (found,) = input_ranges(_Denoiser(), FIRST, self.CALLS, momentum=0.75)["first"]
        low, high = 0.75 * -1 + 0.25 * -3, 0.75 * 1 + 0.25 * 2
        assert found.low == pytest.approx(0.75 * low + 0.25 * -1)
        assert found.high == pytest.approx(0.75 * high + 0.25 * 9)

    def test_a_layer_that_runs_twice_in_a_call_counts_once(self):
        calls = (call(-1.0, 0.0, 1.0), call(-2.0, 0.0, 2.0))
        (found,) = input_ranges(_Twice(), {"shared": W4}, calls, momentum=0.5)["shared"]
        assert found == InputRange(-15.0, 15.0)

    def test_none_at_all_keeps_the_last_call(self):
        found = input_ranges(_Denoiser(), FIRST, self.CALLS, momentum=0.0)
        assert found == {"first": (InputRange(-1.0, 9.0),)}

    def test_without_it_the_range_spans_all_calls(self):
        found = input_ranges(_Denoiser(), FIRST, self.CALLS)
        assert found == {"first": (InputRange(-3.0, 9.0),)}

    @pytest.mark.parametrize("momentum", [-0.1, 1.0, math.nan])
    def test_it_lies_below_one(self, momentum: float):
        with pytest.raises(UsageError, match="momentum: is"):
            input_ranges(_Denoiser(), FIRST, self.CALLS, momentum=momentum)


class TestStructure:
    TEXT = Choice("int4/channel", structures=(ConstantTokens(1),))
    TOKENS = Call((torch.tensor([[[800.0, -900.0], [1.0, -2.0], [3.0, 0.5]]]),), {})

    def test_constant_tokens_do_not_count(self):
        found = input_ranges(nn.Sequential(nn.Linear(2, 2)), {"0": self.TEXT}, [self.TOKENS])
        assert found == {"0": (InputRange(-2.0, 3.0),)}

    def test_a_linear_split_has_a_range_for_each_half_of_its_features(self):
        choice = Choice("int4/channel", structures=(SplitInput(1),))
        found = input_ranges(nn.Sequential(nn.Linear(2, 2)), {"0": choice}, [self.TOKENS])
        assert found == {"0": (InputRange(1.0, 800.0), InputRange(-900.0, 0.5))}

    def test_a_convolution_split_has_a_range_for_each_half_of_its_channels(self):
        x = torch.cat([torch.full((2, 3, 4, 4), 5.0), torch.full((2, 1, 4, 4), -7.0)], 1)
        choice = Choice("int4/channel", structures=(SplitInput(3),))
        found = input_ranges(nn.Sequential(nn.Conv2d(4, 2, 1)), {"0": choice}, [Call((x,), {})])
        assert found == {"0": (InputRange(5.0, 5.0), InputRange(-7.0, -7.0))}

    def test_each_half_has_an_average_of_its_own(self):
        choice = Choice("int4/channel", structures=(SplitInput(1),))
        calls = (Call((torch.tensor([[1.0, 10.0]]),), {}), Call((torch.tensor([[3.0, 30.0]]),), {}))
        found = input_ranges(nn.Sequential(nn.Linear(2, 2)), {"0": choice}, calls, momentum=0.5)
        assert found == {"0": (InputRange(2.0, 2.0), InputRange(20.0, 20.0))}

    def test_an_input_without_tokens_names_the_layer(self):
        with pytest.raises(CalibrationError, match=r"layer first: .*\(1, 3\).*constant tokens"):
            input_ranges(_Denoiser(), {"first": self.TEXT}, [call(0.0, 1.0, 2.0)])

    def test_nothing_but_constant_tokens_leaves_no_range(self):
        calls = [Call((torch.ones(1, 1, 2),), {})]
        with pytest.raises(CalibrationError, match="layer 0: no recorded call reaches it"):
            input_ranges(nn.Sequential(nn.Linear(2, 2)), {"0": self.TEXT}, calls)
