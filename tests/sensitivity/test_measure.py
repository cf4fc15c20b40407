import copy
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mezzotint.calibration import input_ranges
from mezzotint.errors import CalibrationError, UsageError
from mezzotint.models import Call
from mezzotint.plan import Choice, Plan
from mezzotint.runtime import Calibration, quantize_module
from mezzotint.sensitivity import (
    Journal,
    Score,
    Unit,
    check_weights,
    fingerprint,
    measure,
    measure_unit,
    relative_noise,
)
from tests.sensitivity.restoring import assert_restored, state

CONV = "conv_in"
SKIP = "up_blocks.1.resnets.0.conv_shortcut"
QUERY = "mid_block.attentions.0.transformer_blocks.0.attn2.to_q"
TIME = "time_embedding.linear_1"
LAYERS = (CONV, SKIP, QUERY, TIME)
CALIBRATION = Calibration()

W3 = Choice("int3/channel")
CHOICES = (
    Choice("int2/channel"),
    Choice("uint4/group8"),
    Choice("int4/channel", "int8/token"),
    Choice("uint3/tensor", "uint8/token"),
    Choice("int8/channel", "uint8/tensor"),
)


class TestRelativeNoise:
    def test_it_is_error_power_over_signal_power_per_sample(self):
        reference = torch.tensor([[3.0, 4.0], [1.0, 0.0], [2.0, 0.0]])
        output = torch.tensor([[3.0, 3.0], [1.0, 0.0], [0.0, 0.0]])
        assert relative_noise(reference, output).tolist() == pytest.approx([1 / 25, 0.0, 1.0])

    def test_images_are_samples_too(self):
        assert relative_noise(torch.ones(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)).tolist() == [1, 1]

    def test_half_precision_is_compared_in_float32(self):
        reference = torch.full((1, 4096), 100.0, dtype=torch.float16)
        assert relative_noise(reference, reference * 2).tolist() == [1.0]

    def test_a_silent_reference_gives_a_finite_or_infinite_number_not_nan(self):
        assert relative_noise(torch.zeros(1, 4), torch.zeros(1, 4)).tolist() == [0.0]
        assert float(relative_noise(torch.zeros(1, 4), torch.ones(1, 4))) > 1e30

    @pytest.mark.parametrize(("noise", "decibels"), [(1.0, 0.0), (0.01, 20.0), (0.0, math.inf)])
    def test_decibels(self, noise: float, decibels: float):
        assert Score(noise).sqnr_db == pytest.approx(decibels)


class TestMeasureUnit:
    @pytest.mark.parametrize("choice", CHOICES, ids=str)
    @pytest.mark.parametrize("name", LAYERS)
    def test_it_agrees_with_the_packed_layer(
        self, unet: nn.Module, calls: Sequence[Call], name: str, choice: Choice
    ):
        calibration = Calibration(input_ranges(unet, {name: choice}, calls))
        score = measure_unit(unet, Unit(name, choice), calls, calibration)
        packed = quantize_module(copy.deepcopy(unet), Plan({name: choice}), calibration)
        with torch.no_grad():
            noise = [relative_noise(call.output, call.run(packed)) for call in calls]
        # Below this, float32 rounding in the rest of the network is all there is.
        assert score.noise == pytest.approx(float(torch.cat(noise).mean()), rel=0.01, abs=1e-9)

    @pytest.mark.parametrize("name", LAYERS)
    def test_more_bits_make_less_noise(self, unet: nn.Module, calls: Sequence[Call], name: str):
        noise = [
            measure_unit(unet, Unit(name, Choice(f"int{bits}/channel")), calls, CALIBRATION).noise
            for bits in (2, 3, 4, 6, 8)
        ]
        assert noise == sorted(noise, reverse=True)
        assert noise[0] > 100 * noise[-1] > 0

    @pytest.mark.parametrize("name", LAYERS)
    def test_coarser_inputs_make_more_noise(
        self, unet: nn.Module, calls: Sequence[Call], name: str
    ):
        noise = [
            measure_unit(unet, Unit(name, Choice("int8/channel", act)), calls, CALIBRATION).noise
            for act in ("float", "int8/token", "int4/token", "int2/token")
        ]
        assert noise == sorted(noise)
        assert noise[-1] > noise[0]

    def test_noise_is_the_mean_over_calls_and_samples(self, unet: nn.Module, calls: Sequence[Call]):
        unit = Unit(SKIP, W3)
        single = [measure_unit(unet, unit, [call], CALIBRATION).noise for call in calls]
        assert measure_unit(unet, unit, calls, CALIBRATION).noise == pytest.approx(sum(single) / 2)

    def test_it_is_repeatable_and_restores(self, unet: nn.Module, calls: Sequence[Call]):
        before = state(unet)
        first, second = (measure_unit(unet, Unit(CONV, W3), calls, CALIBRATION) for _ in range(2))
        assert first == second
        assert_restored(unet, before)

    def test_nan_in_the_output_names_the_layer_and_restores(
        self, unet: nn.Module, calls: Sequence[Call]
    ):
        unet.conv_out.bias.data[0] = math.nan
        before = state(unet)
        with pytest.raises(CalibrationError, match=f"layer {QUERY} at int3/channel × float: .*NaN"):
            measure_unit(unet, Unit(QUERY, W3), calls, CALIBRATION)
        assert torch.equal(unet.get_submodule(QUERY).weight, before[f"{QUERY}.weight"])

    def test_no_calls_are_refused(self, unet: nn.Module):
        with pytest.raises(CalibrationError, match="no denoiser calls"):
            measure_unit(unet, Unit(QUERY, W3), [], CALIBRATION)

    def test_a_call_without_output_is_refused(self, unet: nn.Module, calls: Sequence[Call]):
        with pytest.raises(CalibrationError, match="no recorded output"):
            measure_unit(unet, Unit(QUERY, W3), [Call(calls[0].args, calls[0].kwargs)], CALIBRATION)


class _Counting(nn.Module):
    """A denoiser that counts its runs and may fail at one of them."""

    def __init__(self, fails_at: int = -1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Linear(4, 4)
        self.b = nn.Linear(4, 4)
        self.runs, self.fails_at = 0, fails_at

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        if self.runs == self.fails_at:
            raise KeyboardInterrupt
        return self.b(self.a(x))


UNITS = [Unit(layer, Choice(f"int{bits}/channel")) for layer in "ab" for bits in (2, 4)]
INPUT = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
TOY_CALLS = (Call((INPUT,), {}, _Counting()(INPUT).detach()),)
TRACE, ADVANCE = 1, 1  # runs of a denoiser beside the one per unit


class TestMeasure:
    def test_scores_are_by_layer_and_choice(self):
        with Journal(None, {}) as journal:
            scores = measure(_Counting(), UNITS, TOY_CALLS, CALIBRATION, journal)
        expected = {u: measure_unit(_Counting(), u, TOY_CALLS, CALIBRATION) for u in UNITS}
        assert {Unit(layer, c): s for layer in scores for c, s in scores[layer].items()} == expected
        assert list(scores) == ["a", "b"]

    def test_units_are_measured_in_the_order_of_execution_and_returned_in_their_own(self):
        units = [UNITS[3], UNITS[0], UNITS[2], UNITS[1]]
        with Journal(None, {}) as journal:
            scores = measure(_Counting(), units, TOY_CALLS, CALIBRATION, journal)
        assert list(journal.entries) == [UNITS[i].name for i in (0, 1, 3, 2)]
        assert [Unit(layer, c) for layer in scores for c in scores[layer]] == [
            UNITS[i] for i in (3, 2, 0, 1)
        ]

    def test_units_in_the_journal_cost_nothing(self, tmp_path: Path):
        with Journal(tmp_path / "journal", {}) as journal:
            first = measure(_Counting(), UNITS, TOY_CALLS, CALIBRATION, journal)
        denoiser = _Counting()
        with Journal(tmp_path / "journal", {}) as journal:
            assert measure(denoiser, UNITS, TOY_CALLS, CALIBRATION, journal) == first
        assert denoiser.runs == 0

    def test_a_resumed_run_goes_straight_to_the_first_missing_layer(self, tmp_path: Path):
        with Journal(tmp_path / "journal", {}) as journal:
            measure(_Counting(), UNITS[:3], TOY_CALLS, CALIBRATION, journal)
        denoiser = _Counting()
        with Journal(tmp_path / "journal", {}) as journal:
            measure(denoiser, UNITS, TOY_CALLS, CALIBRATION, journal)
        assert denoiser.runs == TRACE + ADVANCE + 1

    @pytest.mark.parametrize("cache_bytes", [0, None], ids=["in full", "replayed"])
    def test_an_interruption_loses_only_the_unit_in_flight(
        self, tmp_path: Path, cache_bytes: int | None
    ):
        denoiser = _Counting(fails_at=2 + 1 if cache_bytes == 0 else TRACE + 2 + ADVANCE + 1)
        before = state(denoiser)
        with pytest.raises(KeyboardInterrupt), Journal(tmp_path / "journal", {}) as journal:
            measure(denoiser, UNITS, TOY_CALLS, CALIBRATION, journal, cache_bytes=cache_bytes)
        assert_restored(denoiser, before)
        with Journal(tmp_path / "journal", {}) as journal:
            assert list(journal.entries) == [unit.name for unit in UNITS[:2]]
            resumed = measure(denoiser, UNITS, TOY_CALLS, CALIBRATION, journal)
        with Journal(None, {}) as journal:
            assert resumed == measure(_Counting(), UNITS, TOY_CALLS, CALIBRATION, journal)

    def test_the_journal_holds_plain_scores_by_unit(self):
        with Journal(None, {}) as journal:
            scores = measure(_Counting(), UNITS[:1], TOY_CALLS, CALIBRATION, journal)
        assert journal.entries == {
            "a | int2/channel | float": asdict(scores["a"][Choice("int2/channel")])
        }

    def test_without_memory_every_call_runs_in_full_and_nothing_else(self):
        denoiser = _Counting()
        with Journal(None, {}) as journal:
            measure(denoiser, UNITS, TOY_CALLS, CALIBRATION, journal, cache_bytes=0)
        assert denoiser.runs == len(UNITS)

    def test_negative_memory_is_refused(self):
        with Journal(None, {}) as journal, pytest.raises(UsageError, match="cache_bytes: -1"):
            measure(_Counting(), UNITS, TOY_CALLS, CALIBRATION, journal, cache_bytes=-1)


class TestFingerprint:
    def test_the_same_denoiser_and_calls_have_the_same(
        self, unet: nn.Module, calls: Sequence[Call]
    ):
        assert fingerprint(unet, calls) == fingerprint(copy.deepcopy(unet), calls)

    def test_one_changed_weight_or_output_changes_it(self, unet: nn.Module, calls: Sequence[Call]):
        known = {fingerprint(unet, calls), fingerprint(unet, calls[:1])}
        calls[0].output[0, 0, 0, 0] += 1e-3
        known.add(fingerprint(unet, calls))
        unet.conv_norm_out.bias.data[3] += 1e-3
        known.add(fingerprint(unet, calls))
        assert len(known) == 4

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
    def test_half_precision_is_hashed_too(
        self, unet: nn.Module, calls: Sequence[Call], dtype: torch.dtype
    ):
        assert fingerprint(copy.deepcopy(unet).to(dtype), calls) != fingerprint(unet, calls)


class TestCheckWeights:
    def test_sound_weights_pass(self, unet: nn.Module):
        check_weights(unet, LAYERS)

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_nan_and_infinity_name_the_layer(self, unet: nn.Module, value: float):
        unet.get_submodule(SKIP).weight.data[0, 0] = value
        with pytest.raises(CalibrationError, match=f"layer {SKIP}: the weight holds NaN"):
            check_weights(unet, LAYERS)
