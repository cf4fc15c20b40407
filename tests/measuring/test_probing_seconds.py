"""Time that probes will take, by a clock that tells how much was done."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mezzotint.measuring import (
    CandidateSeconds,
    LayerCandidates,
    PassSeconds,
    Prober,
    candidate_seconds,
    middle_layer,
    probing_seconds,
    rounded_inputs,
)
from mezzotint.plan import Choice, Plan
from tests.measuring.probing import candidates

FORMATS = ("int3/channel", "int8/channel")
ENCODED, DECODED, MULTIPLIED = 100.0, 10.0, 1.0


class Three(nn.Sequential):
    """Layers of 8, 24 and 80 weights."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 2), nn.Linear(4, 6), nn.Linear(8, 10))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Layer and format of each weight that was decoded, by a clock that counts all work."""
    found: list[tuple[str, str]] = []
    clock = Clock(found)
    monkeypatch.setattr(probing_seconds.time, "perf_counter", clock.now)
    monkeypatch.setattr("mezzotint.measuring.probed_layer._product", clock.product)
    return found


class Clock:
    def __init__(self, decoded: list[tuple[str, str]]) -> None:
        self.decoded, self.products = decoded, 0

    def product(self, *pieces: object) -> Tensor:
        self.products += 1
        return torch.zeros(())

    def now(self) -> float:
        encoded = ENCODED * len(set(self.decoded))
        return encoded + DECODED * len(self.decoded) + MULTIPLIED * self.products


def prober(denoiser: nn.Module, decoded: list[tuple[str, str]], **other: object) -> Prober:
    def weight_of(name: str, choice: Choice) -> tuple[Tensor, None]:
        decoded.append((name, choice.weight))
        return denoiser.get_submodule(name).get_parameter("weight").detach() + 1, None

    options = {"candidates": candidates("012", FORMATS)} | other
    return Prober(denoiser, (), weight_of=weight_of, **options)


class TestCandidates:
    def test_work_on_the_middle_layer_stands_for_all(self, asked):
        found = candidate_seconds(prober(Three(), asked))
        scale = 2 * (8 + 24 + 80) / 24  # two formats
        assert {name for name, _ in asked} == {"1"}
        assert found.encoding == pytest.approx(scale * ENCODED)
        assert found.decoding == pytest.approx(scale * DECODED)
        assert found.products == pytest.approx(scale * MULTIPLIED)

    def test_layers_count_by_their_formats(self, asked):
        one, two = LayerCandidates(FORMATS[:1]), LayerCandidates(FORMATS)
        found = candidate_seconds(
            prober(Three(), asked, candidates={"0": two, "1": one, "2": LayerCandidates()})
        )
        assert found.products == pytest.approx(MULTIPLIED * (2 * 8 + 24) / 24)

    @pytest.mark.parametrize(
        ("room", "share"), [(None, 1.0), (2**20, 1.0), (2 * 112 * 2, 0.5), (0, 0.0)]
    )
    def test_float32_differences_are_kept_while_there_is_room(self, asked, room, share):
        assert candidate_seconds(prober(Three(), asked, cache_bytes=room)).kept == share

    def test_no_weights_take_no_time(self, asked):
        found = candidate_seconds(prober(Three(), asked, candidates={}))
        assert found.encoding == found.comparing(8) == 0
        assert not asked

    def test_the_layer_stays_as_it_was(self, asked):
        denoiser = Three()
        weight = denoiser[1].weight
        candidate_seconds(prober(denoiser, asked))
        assert denoiser[1].weight is weight
        assert weight.grad is None

    def test_the_middle_layer_is_so_by_its_weights(self):
        assert middle_layer(Three(), "201") == "1"


class TestSums:
    SECONDS = CandidateSeconds(encoding=50.0, decoding=8.0, products=1.0, kept=0.25)

    def test_what_is_kept_is_decoded_once(self):
        assert self.SECONDS.comparing(0) == 0
        assert self.SECONDS.comparing(1) == 8 + 1
        assert self.SECONDS.comparing(5) == 8 + 4 * 6 + 5

    def test_more_candidates_leave_less_of_the_room_to_each(self):
        assert self.SECONDS.times(2) == CandidateSeconds(100.0, 16.0, 2.0, 0.125)

    def test_probes_take_passes_roundings_and_comparisons(self):
        passes = PassSeconds(forward=10.0, backward=30.0)
        assert passes.of_probes(0, self.SECONDS, 2) == 0
        expected = 2 * 10 + 5 * (30 + 2 * 0.2 * 10) + self.SECONDS.comparing(5)
        assert passes.of_probes(5, self.SECONDS, 2) == pytest.approx(expected)


class TestRoundedInputs:
    def test_candidates_are_rounded_once(self, asked):
        probed = candidates("012", FORMATS, ("int4/token", "int8/token"))
        assert rounded_inputs(prober(Three(), asked, candidates=probed)) == 2

    def test_those_of_a_plan_on_the_way_there_and_back(self, asked):
        plan = Plan(dict.fromkeys("012", Choice("int8/channel", "int8/token")))
        assert rounded_inputs(prober(Three(), asked, plan=plan)) == 2
