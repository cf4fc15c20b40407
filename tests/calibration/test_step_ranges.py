"""Each timestep's scale and zero point, found by itself."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mezzotint.calibration import calibrated, step_scales
from mezzotint.calibration.clipping import InputHistogram
from mezzotint.calibration.step_ranges import SEARCH, calls_by_timestep, clipped_parameters
from mezzotint.errors import CalibrationError, UsageError
from mezzotint.formats import from_bits, parse_activation_format
from mezzotint.models import Call
from mezzotint.plan import Choice, Plan
from mezzotint.runtime import ConstantTokens, InputRange, Smoothing, SplitInput, StepScales
from tests.fuzzing import examples
from tests.runtime.layers import noise


class _Denoiser(nn.Module):
    """A Linear whose inputs grow with the timestep."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(8, 4)

    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        return self.layer(sample)


def choice(steps: int, activation: str = "uint4/step", *outer: object) -> Choice:
    return Choice("int4/channel", activation, (*outer, StepScales(steps)))


def call(x: Tensor, timestep: object) -> Call:
    return Call((x,), {"timestep": torch.as_tensor(timestep)}, output=x[..., :4])


def parameters(tables: dict[str, Tensor]) -> tuple[list[float], list[float], list[int]]:
    times, scales = (from_bits(tables[f"{n}"], torch.float32) for n in ("timestep", "step_scale"))
    return times.tolist(), scales.tolist(), tables["step_zero_point"].tolist()


X = noise(2, 3, 8)


class TestTimesteps:
    def test_each_is_calibrated_on_its_own_calls(self):
        calls = [call(X, 900), call(3 * X, 10), call(X, 500)]
        found = step_scales(_Denoiser(), {"layer": choice(3)}, calls)["layer"]
        times, scales, zeros = parameters(found)
        assert times == [10.0, 500.0, 900.0]
        assert scales[0] == pytest.approx(3 * scales[1])
        assert scales[1] == scales[2]
        alone = step_scales(_Denoiser(), {"layer": choice(1)}, [call(3 * X, 10)])["layer"]
        assert parameters(alone) == ([10.0], scales[:1], zeros[:1])

    def test_several_calls_of_one_are_seen_together(self):
        apart = [call(X[:1], 5), call(X[1:], 5)]
        together = step_scales(_Denoiser(), {"layer": choice(1)}, [call(X, 5)])["layer"]
        found = step_scales(_Denoiser(), {"layer": choice(1)}, apart)["layer"]
        assert parameters(found) == parameters(together)

    def test_samples_of_a_batch_are_told_apart(self):
        mixed = call(torch.cat([X[:1], 3 * X[1:]]), [900, 10])
        singles = [call(X[:1], 900), call(3 * X[1:], 10)]
        found = step_scales(_Denoiser(), {"layer": choice(2)}, [mixed])["layer"]
        expected = step_scales(_Denoiser(), {"layer": choice(2)}, singles)["layer"]
        assert parameters(found) == parameters(expected)

    def test_smoothed_inputs_are_seen_as_they_are_rounded(self):
        x = X * torch.tensor([100.0, *[1.0] * 7])
        denoiser, plain, smooth = _Denoiser(), choice(1), choice(1, "uint4/step", Smoothing())
        (found,) = calibrated(denoiser, Plan({"layer": smooth}), [call(x, 5)]).tensors.values()
        smoothed = x / found["exponent"].float().exp2()
        expected = step_scales(denoiser, {"layer": plain}, [call(smoothed, 5)])["layer"]
        assert found["exponent"][0] >= 3
        tables = {name.removeprefix("smoothed."): each for name, each in found.items()}
        assert parameters(tables) == parameters(expected)

    def test_samples_that_cannot_be_told_apart_are_refused(self):
        with pytest.raises(
            CalibrationError, match="call 1 has 3 timesteps for samples that cannot"
        ):
            calls_by_timestep(_Denoiser(), [call(X, [1, 2, 3])])

    def test_a_call_without_one_is_refused(self):
        class Optional(_Denoiser):
            def forward(self, sample: Tensor, timestep: Tensor | None = None) -> Tensor:
                return self.layer(sample)

        with pytest.raises(CalibrationError, match="call 2 was given no timestep"):
            calls_by_timestep(Optional(), [call(X, 1), Call((X,), {})])

    def test_a_denoiser_without_one_is_refused(self):
        with pytest.raises(UsageError, match="Linear is called without a timestep"):
            step_scales(nn.Linear(8, 4), {"": choice(1)}, [Call((X,), {})])

    @pytest.mark.parametrize("steps", [1, 3])
    def test_other_numbers_of_them_name_the_remedy(self, steps: int):
        calls = [call(X, 1), call(X, 2)]
        complaint = rf"layer layer: .* {steps} steps, .* 2 timesteps \(1, 2\).*StepScales\(2\)"
        with pytest.raises(CalibrationError, match=complaint):
            step_scales(_Denoiser(), {"layer": choice(steps)}, calls)

    def test_nan_names_layer_and_timestep(self):
        calls = [call(X, 1), call(X * math.nan, 2)]
        with pytest.raises(CalibrationError, match=r"at timestep 2: layer layer: .*NaN"):
            step_scales(_Denoiser(), {"layer": choice(2)}, calls)


class TestStructures:
    def test_constant_tokens_stay_out(self):
        x = X.clone()
        x[:, 0] = 800.0
        outer = choice(1, "uint4/step", ConstantTokens(1))
        found = step_scales(_Denoiser(), {"layer": outer}, [call(x, 5)])["layer"]
        expected = step_scales(_Denoiser(), {"layer": choice(1)}, [call(X[:, 1:], 5)])["layer"]
        assert found.keys() == {f"others.{name}" for name in expected}
        assert torch.equal(found["others.step_scale"], expected["step_scale"])

    def test_each_half_of_a_split_input_has_its_own(self):
        x = torch.cat([X[..., :4], 100 * X[..., 4:]], -1)
        outer = choice(1, "uint4/step", SplitInput(4))
        found = step_scales(_Denoiser(), {"layer": outer}, [call(x, 5)])["layer"]
        first, second = (
            from_bits(found[f"{part}.step_scale"], torch.float32).item()
            for part in ("first", "second")
        )
        assert 20 * first < second

    def test_they_stand_beside_what_else_is_calibrated(self):
        plan = Plan({"layer": choice(2)})
        found = calibrated(_Denoiser(), plan, [call(X, 1), call(2 * X, 2)])
        assert found.tensors["layer"].keys() == {"timestep", "step_scale", "step_zero_point"}
        assert not found.input_ranges


def brute(x: Tensor, activation: str) -> tuple[float, float, float]:
    """Scale, zero point and error of the best ratio, on the values themselves."""
    fmt = parse_activation_format(activation)
    found = []
    for ratio in SEARCH.ratios:
        low, high = ratio * float(x.min()), ratio * float(x.max())
        scale, zero = fmt.range_parameters(low, high, x.device)
        error = (fmt.roundtrip(x, scale, zero) - x).abs().double().pow(2.4).sum()
        found.append((float(error), float(scale), float(zero)))
    error, scale, zero = min(found)
    return scale, zero, error


def clipped(x: Tensor, activation: str) -> tuple[Tensor, Tensor]:
    histogram = InputHistogram([InputRange(float(x.min()), float(x.max()))])
    histogram.see((x,))
    return clipped_parameters(
        histogram.ranges[0], histogram.counts[0], parse_activation_format(activation)
    )


class TestClipping:
    def test_eighty_ratios_are_tried(self):
        assert SEARCH.power == 2.4
        assert [round(ratio, 2) for ratio in SEARCH.ratios] == [
            round(1 - step / 100, 2) for step in range(80)
        ]

    @examples(25)
    @given(
        width=st.integers(2, 8),
        kind=st.sampled_from(["int", "uint"]),
        seed=st.integers(0, 50),
        outlier=st.sampled_from([0.0, 20.0, -50.0]),
    )
    def test_no_ratio_is_better(self, width: int, kind: str, seed: int, outlier: float):
        x = torch.cat([noise(4000, seed=seed), torch.tensor([outlier])])
        activation = f"{kind}{width}/step"
        scale, zero = clipped(x, activation)
        fmt = parse_activation_format(activation)
        error = (fmt.roundtrip(x, scale, zero) - x).abs().double().pow(2.4).sum()
        # Values are counted in bins, so that nearly equal ratios may change places.
        assert float(error) <= brute(x, activation)[2] * 1.02

    def test_outliers_are_clipped(self):
        x = torch.cat([noise(4000), torch.tensor([8.0, -8.0])])
        full = parse_activation_format("uint4/step").range_parameters(-8.0, 8.0, x.device)
        assert float(clipped(x, "uint4/step")[0]) < 0.7 * float(full[0])

    def test_zero_points_are_whole_and_within_the_codes(self):
        _, zero = clipped(noise(500).abs() + 3.0, "uint4/step")
        assert zero.item() == 0.0
        _, zero = clipped(-noise(500).abs() - 3.0, "uint4/step")
        assert zero.item() == 15.0

    @pytest.mark.parametrize("value", [0.0, 2.5, -3.0])
    def test_a_constant_input_is_exact(self, value: float):
        x = torch.full((10,), value)
        scale, zero = clipped(x, "uint4/step")
        fmt = parse_activation_format("uint4/step")
        torch.testing.assert_close(fmt.roundtrip(x, scale, zero), x)
        assert bool((scale > 0).all())
