"""The line that announces all work, against the stages that a run then goes through."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

import pytest

import mezzotint as mz
from mezzotint import _progress
from mezzotint._progress import OVERALL, Log, followed_by, listening
from mezzotint.measuring import CandidateSeconds, Noise
from mezzotint.models import record_calls
from mezzotint.recipes.auto.encodings import encodings
from mezzotint.recipes.auto.expected_calls import ExpectedCalls, expected_calls
from mezzotint.recipes.auto.outlook import Outlook
from mezzotint.recipes.auto.rehearsal import Rehearsal, rehearsed
from mezzotint.recipes.job import Job
from mezzotint.recipes.restrictions import Restrictions
from tests.recipes.conftest import NEAREST

QUICK = replace(NEAREST, sensitivity="hybrid", bias_correction="tried")

RECIPES = {
    "probes alone": NEAREST,
    "hybrid": QUICK,
    "smoothing": replace(QUICK, smoothing=True),
    "error feedback": replace(QUICK, rounding="feedback", exchanges=True),
    "static inputs": replace(QUICK, inputs=("uint8/tensor", "float"), clips=("mse",)),
    "measured": replace(QUICK, sensitivity="measured"),
}


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list that grows by the label of every stage that begins, and by `told` for every line."""
    labels: list[str] = []

    class Noted(Log):
        def __init__(self, description: str, *rest: object) -> None:
            labels.append(description)
            super().__init__(description, *rest)

    monkeypatch.setattr(_progress, "Log", Noted)
    return labels


def announced(line: str) -> dict[str, str]:
    """Stage → its time, of the line that announces all."""
    stages = line.partition("\n")[0].removeprefix(OVERALL).partition(": ")[2]
    found = re.findall(r"([a-z -]+?) (\d+ [a-z]+)(?:, |$)", stages)
    assert ", ".join(" ".join(each) for each in found) == stages
    return dict(found)


@pytest.mark.parametrize("name", RECIPES)
def test_all_stages_that_run_were_announced_in_their_order_and_no_others(
    pipe, sampling, begun, name
):
    lines: list[str] = []

    def told(line: str) -> None:
        if not lines:  # what came before was the timing that the line is made of
            begun.clear()
        lines.append(line)

    with listening(told):
        mz.quantize(pipe, RECIPES[name], mz.Budget(6), sampling=sampling)
    ran = dict.fromkeys(each.lower() for each in begun if not each.startswith("Timing for: "))
    assert lines[0].startswith(OVERALL)
    first = announced(lines[0])
    # Measurements of single formats are told as a bound: there may be any. Packing what the search
    # has encoded takes no time.
    bounded = {"packing", *(["measuring"] if " measurements on " in lines[0] else [])}
    assert list(first) == [each for each in ran if each in first or each not in bounded]


def test_calls_that_are_given_are_not_recorded(pipe, sampling):
    calls, lines = record_calls(pipe, sampling), []
    with listening(lines.append):
        mz.quantize(pipe, NEAREST, mz.Budget(6), calls=calls)
    assert "recording" not in announced(lines[0])


def test_a_stage_that_the_caller_adds_is_announced_at_the_end(pipe, sampling):
    lines: list[str] = []
    with listening(lines.append), followed_by("Timing the result", calls=9):
        mz.quantize(pipe, NEAREST, mz.Budget(6), sampling=sampling)
    assert list(announced(lines[0]))[-1] == "timing the result"


def test_nobody_listens_nothing_is_timed(pipe, sampling, begun):
    mz.quantize(pipe, NEAREST, mz.Budget(6), sampling=sampling)
    assert begun
    assert not any(each.startswith("Timing") for each in begun)


def test_what_is_found_does_not_depend_on_a_listener(pipe, sampling):
    with listening(lambda line: None):
        told = mz.quantize(pipe, NEAREST, mz.Budget(6), sampling=sampling)
    assert told.plan == mz.quantize(pipe, NEAREST, mz.Budget(6), sampling=sampling).plan


class TestExpectedCalls:
    """Calls and rows, against those that are really recorded."""

    @pytest.fixture
    def rehearsal(self, pipe, sampling) -> Rehearsal:
        return rehearsed(self.job(pipe, sampling), Restrictions())

    @staticmethod
    def job(pipe, sampling) -> Job:
        return Job(pipe.unet, "tiny", mz.Budget(6), pipe, sampling)

    @pytest.mark.parametrize("guidance", [1.0, 5.0], ids=["no-guidance", "guidance"])
    @pytest.mark.parametrize("calls", [None, 1, 3, 8])
    def test_they_are_as_many_as_are_recorded(self, pipe, sampling, calls, guidance):
        sampling = replace(sampling, prompts=("owl", "fox", "cat"), batch=2, guidance=guidance)
        sampling = replace(sampling, steps=3)
        selection = None if calls is None else mz.plan.CallSelection(calls, samples=3)
        rehearsal = rehearsed(self.job(pipe, sampling), Restrictions())
        found = expected_calls(self.job(pipe, sampling), selection, rehearsal)
        runs: list[int] = []
        hook = pipe.unet.register_forward_pre_hook(
            lambda module, args, kwargs: runs.append(len(args[0])), with_kwargs=True
        )
        recorded = record_calls(pipe, sampling, selection)
        hook.remove()
        rows = sum(len(call.output) for call in recorded)
        assert found == ExpectedCalls(len(recorded), rows, sum(runs))


class TestStages:
    """Seconds of each stage, of a rehearsal that took round numbers."""

    PASSES: ClassVar[dict[str, float]] = {"row": 1.0, "backward": 4.0}

    @pytest.fixture
    def outlook(self, pipe, sampling, monkeypatch) -> Callable[..., Outlook]:
        job = TestExpectedCalls.job(pipe, sampling)
        rehearsal = replace(rehearsed(job, Restrictions()), **self.PASSES)

        def of(options: mz.Auto = NEAREST, rows: int = 8, **seconds: float) -> Outlook:
            found = {"encoding": 30.0, "decoding": 8.0, "products": 2.0, "kept": 0.0} | seconds
            monkeypatch.setattr(
                "mezzotint.recipes.auto.outlook.rehearsed_candidates",
                lambda *asked: CandidateSeconds(**found),
            )
            calls = ExpectedCalls(1, rows, rows)
            encoding = encodings(options)[1]
            return Outlook(job, options, Noise(), encoding, rehearsal, calls)

        return of

    def test_each_probe_decodes_and_multiplies_all_candidates(self, outlook):
        runs, encoding, probes = 2, 30, NEAREST.probes  # two input formats
        assert outlook(decoding=0.0).stages["Probing"] == pytest.approx(
            runs + encoding + probes * (4 + 2 * 0.2 + 2)
        )
        assert outlook().stages["Probing"] == pytest.approx(
            runs + encoding + probes * (4 + 2 * 0.2 + 2 + 8)
        )

    def test_floating_inputs_are_not_rounded(self, outlook):
        options = replace(NEAREST, inputs=("float",))
        rounded = outlook().stages["Probing"]
        assert outlook(options).stages["Probing"] == pytest.approx(
            rounded - 2 * 0.2 * NEAREST.probes
        )

    def test_mixtures_are_compared_as_formats_are(self, outlook):
        mixed = outlook(replace(NEAREST, mixtures=(3, 5)))  # as many as formats
        assert mixed.stages["Probing"] == pytest.approx(2 + 2 * 30 + 4 * (4.4 + 2 * (2 + 8)))

    def test_further_probes_compare_as_well(self, outlook):
        assert outlook().later["more probes"].seconds == pytest.approx(2 / 4 + 4.4 + 2 + 8)

    def test_packing_is_announced_only_where_weights_are_encoded_again(self, outlook):
        feedback = replace(NEAREST, rounding="feedback")
        assert "Packing" not in outlook(NEAREST, rows=32).stages
        assert "Packing" not in outlook(feedback, rows=8).stages  # all samples fit and judge
        assert outlook(feedback, rows=32).stages["Packing"] == 15  # one format of two
