import copy
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mezzotint._journal import Journal
from mezzotint.calibration import input_ranges
from mezzotint.errors import CalibrationError, UsageError
from mezzotint.measuring import LayerChange, Noise, Task, relative_noise
from mezzotint.models import Call
from mezzotint.plan import Choice, Plan
from mezzotint.runtime import Calibration, quantize_module
from tests.measuring.figures import noise, noises
from tests.measuring.restoring import assert_restored, state

CONV = "conv_in"
SKIP = "up_blocks.1.resnets.0.conv_shortcut"
QUERY = "mid_block.attentions.0.transformer_blocks.0.attn2.to_q"
TIME = "time_embedding.linear_1"
LAYERS = (CONV, SKIP, QUERY, TIME)

W3 = Choice("int3/channel")
CHOICES = (
    Choice("int2/channel"),
    Choice("uint4/group8"),
    Choice("int4/channel", "int8/token"),
    Choice("uint3/tensor", "uint8/token"),
    Choice("int8/channel", "uint8/tensor"),
)


class TestNoise:
    @pytest.mark.parametrize("choice", CHOICES, ids=str)
    @pytest.mark.parametrize("name", LAYERS)
    def test_it_agrees_with_the_packed_layer(
        self, unet: nn.Module, calls: Sequence[Call], name: str, choice: Choice
    ):
        calibration = Calibration(input_ranges(unet, {name: choice}, calls))
        found = noise(unet, LayerChange(name, choice), calls, calibration)
        packed = quantize_module(copy.deepcopy(unet), Plan({name: choice}), calibration)
        with torch.no_grad():
            expected = [relative_noise(call.output, call.run(packed)) for call in calls]
        # Below this, float32 rounding in the rest of the network is all there is.
        assert found == pytest.approx(float(torch.cat(expected).mean()), rel=0.01, abs=1e-9)

    @pytest.mark.parametrize("name", LAYERS)
    def test_more_bits_make_less_noise(self, unet: nn.Module, calls: Sequence[Call], name: str):
        found = [
            noise(unet, LayerChange(name, Choice(f"int{bits}/channel")), calls)
            for bits in (2, 3, 4, 6, 8)
        ]
        assert found == sorted(found, reverse=True)
        assert found[0] > 100 * found[-1] > 0

    @pytest.mark.parametrize("name", LAYERS)
    def test_coarser_inputs_make_more_noise(
        self, unet: nn.Module, calls: Sequence[Call], name: str
    ):
        found = [
            noise(unet, LayerChange(name, Choice("int8/channel", act)), calls)
            for act in ("float", "int8/token", "int4/token", "int2/token")
        ]
        assert found == sorted(found)
        assert found[-1] > found[0]

    def test_noise_is_the_mean_over_calls_and_samples(self, unet: nn.Module, calls: Sequence[Call]):
        change = LayerChange(SKIP, W3)
        single = [noise(unet, change, [call]) for call in calls]
        assert noise(unet, change, calls) == pytest.approx(sum(single) / 2)

    def test_it_is_repeatable_and_restores(self, unet: nn.Module, calls: Sequence[Call]):
        before = state(unet)
        first, second = (noise(unet, LayerChange(CONV, W3), calls) for _ in range(2))
        assert first == second
        assert_restored(unet, before)

    def test_nan_in_the_output_names_the_layer_and_restores(
        self, unet: nn.Module, calls: Sequence[Call]
    ):
        unet.conv_out.bias.data[0] = math.nan
        before = state(unet)
        with pytest.raises(CalibrationError, match=f"layer {QUERY} at int3/channel × float: .*NaN"):
            noise(unet, LayerChange(QUERY, W3), calls)
        assert torch.equal(unet.get_submodule(QUERY).weight, before[f"{QUERY}.weight"])

    def test_no_calls_are_refused(self, unet: nn.Module):
        with pytest.raises(CalibrationError, match="no denoiser calls"):
            noise(unet, LayerChange(QUERY, W3), [])

    def test_a_call_without_output_is_refused(self, unet: nn.Module, calls: Sequence[Call]):
        with pytest.raises(CalibrationError, match="no recorded output"):
            noise(unet, LayerChange(QUERY, W3), [Call(calls[0].args, calls[0].kwargs)])


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


CHANGES = [LayerChange(layer, Choice(f"int{bits}/channel")) for layer in "ab" for bits in (2, 4)]
INPUT = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
TOY_CALLS = (Call((INPUT,), {}, _Counting()(INPUT).detach()),)
TRACE, ADVANCE = 1, 1  # runs of a denoiser beside the one per unit


def key(change: LayerChange) -> str:
    return Task(change, Noise()).key


class TestMeasure:
    def test_scores_are_by_layer_and_choice(self):
        with Journal(None, {}) as journal:
            scores = noises(_Counting(), CHANGES, TOY_CALLS, journal)
        expected = {change: noise(_Counting(), change, TOY_CALLS) for change in CHANGES}
        assert {
            LayerChange(layer, choice): figures["noise"]
            for layer in scores
            for choice, figures in scores[layer].items()
        } == expected
        assert list(scores) == ["a", "b"]

    def test_units_are_measured_in_the_order_of_execution_and_returned_in_their_own(self):
        changes = [CHANGES[3], CHANGES[0], CHANGES[2], CHANGES[1]]
        with Journal(None, {}) as journal:
            scores = noises(_Counting(), changes, TOY_CALLS, journal)
        assert list(journal.entries) == [key(CHANGES[i]) for i in (0, 1, 3, 2)]
        assert [LayerChange(layer, c) for layer in scores for c in scores[layer]] == [
            CHANGES[i] for i in (3, 2, 0, 1)
        ]

    def test_units_in_the_journal_cost_nothing(self, tmp_path: Path):
        with Journal(tmp_path / "journal", {}) as journal:
            first = noises(_Counting(), CHANGES, TOY_CALLS, journal)
        denoiser = _Counting()
        with Journal(tmp_path / "journal", {}) as journal:
            assert noises(denoiser, CHANGES, TOY_CALLS, journal) == first
        assert denoiser.runs == 0

    def test_a_resumed_run_goes_straight_to_the_first_missing_layer(self, tmp_path: Path):
        with Journal(tmp_path / "journal", {}) as journal:
            noises(_Counting(), CHANGES[:3], TOY_CALLS, journal)
        denoiser = _Counting()
        with Journal(tmp_path / "journal", {}) as journal:
            noises(denoiser, CHANGES, TOY_CALLS, journal)
        assert denoiser.runs == TRACE + ADVANCE + 1

    @pytest.mark.parametrize("cache_bytes", [0, None], ids=["in full", "replayed"])
    def test_an_interruption_loses_only_the_unit_in_flight(
        self, tmp_path: Path, cache_bytes: int | None
    ):
        denoiser = _Counting(fails_at=2 + 1 if cache_bytes == 0 else TRACE + 2 + ADVANCE + 1)
        before = state(denoiser)
        with pytest.raises(KeyboardInterrupt), Journal(tmp_path / "journal", {}) as journal:
            noises(denoiser, CHANGES, TOY_CALLS, journal, cache_bytes=cache_bytes)
        assert_restored(denoiser, before)
        with Journal(tmp_path / "journal", {}) as journal:
            assert list(journal.entries) == list(map(key, CHANGES[:2]))
            resumed = noises(denoiser, CHANGES, TOY_CALLS, journal)
        with Journal(None, {}) as journal:
            assert resumed == noises(_Counting(), CHANGES, TOY_CALLS, journal)

    def test_the_journal_holds_plain_scores_by_unit(self):
        with Journal(None, {}) as journal:
            scores = noises(_Counting(), CHANGES[:1], TOY_CALLS, journal)
        assert journal.entries == {
            "a | int2/channel | float | mse, nearest | noise": dict(
                scores["a"][Choice("int2/channel")]
            )
        }

    def test_without_memory_every_call_runs_in_full_and_nothing_else(self):
        denoiser = _Counting()
        with Journal(None, {}) as journal:
            noises(denoiser, CHANGES, TOY_CALLS, journal, cache_bytes=0)
        assert denoiser.runs == len(CHANGES)

    def test_negative_memory_is_refused(self):
        with Journal(None, {}) as journal, pytest.raises(UsageError, match="cache_bytes: -1"):
            noises(_Counting(), CHANGES, TOY_CALLS, journal, cache_bytes=-1)
