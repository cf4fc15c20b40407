"""Plans are judged on samples that error feedback has not seen, and stored with all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from typing_extensions import override

import mezzotint as mz
from mezzotint._journal import Journal
from mezzotint.calibration import calibrated
from mezzotint.measuring import InProcess, Noise, Original, PlanChange, Prober, Task, measure
from mezzotint.models import Call, completed_calls, evaluating
from mezzotint.recipes import Job, run_recipe
from mezzotint.recipes.auto.allocation import allocated
from mezzotint.recipes.auto.check import checked
from mezzotint.recipes.auto.divided_samples import divided_samples
from mezzotint.recipes.auto.held_out import halved
from mezzotint.recipes.auto.preparation import prepared
from mezzotint.recipes.auto.recipe import final_calibration
from mezzotint.recipes.auto.search import Search
from mezzotint.runtime import Calibration, packed_copy
from tests.recipes.auto.conftest import FORMATS
from tests.recipes.auto.denoisers import Chain, calls
from tests.recipes.watching import watched

QUICK = {"formats": FORMATS, "regret": 1e9, "activation": "float", "smoothing": False}


def job(count: int = 8, samples: int = 4, bits: float = 4.7) -> Job:
    module = Chain(peak=1.0).eval()
    recorded = completed_calls(module, calls(count, samples))
    return Job(module, "chain", mz.Budget(weight_bits=bits, act_bits=16), calls=recorded)


@contextmanager
def searching(given: Job, **options: object) -> Iterator[Search]:
    with evaluating(given.denoiser), prepared(given, mz.Auto(**{**QUICK, **options})) as search:
        yield search


def rows(calibration: Calibration) -> set[int]:
    """Input rows that the moments of a calibration are of."""
    return {each.count for parts in calibration.moments.values() for each in parts}


class TestRoles:
    def test_one_sample_of_four_judges_and_the_others_are_fitted_to(self):
        given = job()
        found = divided_samples(given.denoiser, given.calls, fits=True)
        assert found.apart
        inputs = [
            torch.cat([call.args[0] for call in part])
            for part in (found.fitted, found.judging, given.calls)
        ]
        fitted, judging, recorded = inputs
        assert torch.equal(judging, recorded[3::4])
        assert torch.equal(fitted, recorded[torch.arange(len(recorded)) % 4 != 3])

    def test_half_of_those_that_judge_judges_what_the_other_half_proposes(self):
        given = job(8, 8)
        held = divided_samples(given.denoiser, given.calls, fits=True).held
        assert held.shown == "half of every 4th of 64 recorded samples"
        assert held.samples == (1, 2, 4, 7, 8, 11, 13, 14)
        assert sum(len(call.output) for call in held.others) == 8

    def test_each_half_has_both_samples_of_calls_that_have_two(self):
        """Such as the halves of guidance."""
        x = torch.arange(2.0)[:, None].expand(2, 3)
        found = halved([Call((x,), {}, output=x.clone()) for _ in range(4)])
        assert {index % 2 for index in found.samples} == {0, 1}
        assert {float(row) for call in found.others for row in call.output[:, 0]} == {0.0, 1.0}

    @pytest.mark.parametrize(("count", "apart"), [(7, False), (8, True)])
    def test_it_takes_32_samples(self, count, apart):
        given = job(count, 4)
        assert divided_samples(given.denoiser, given.calls, fits=True).apart == apart

    def test_rows_that_depend_on_each_other_stay_together(self):
        class Mixing(nn.Module):
            @override
            def forward(self, x: Tensor) -> Tensor:
                return x - x.mean(0)

        recorded = completed_calls(Mixing(), calls(32, 2))
        found = divided_samples(Mixing(), recorded, fits=True)
        assert [len(call.output) for call in found.fitted] == [2] * 24
        assert [len(call.output) for call in found.judging] == [2] * 8


class TestDecisions:
    def test_weights_are_fitted_to_fewer_rows_than_what_is_stored(self):
        with searching(job()) as search:
            plan = search.plan(allocated(search).choices)
            assert rows(search.calibration) == {24 * 8}
            assert rows(final_calibration(search, plan)) == {32 * 8}

    def test_probes_and_measurements_are_of_the_samples_that_judge(self, monkeypatch):
        probed: list[int] = []
        ordinary = Prober.run

        def run(self: Prober, *arguments: object):
            probed.append(sum(len(call.output) for call in self.calls))
            return ordinary(self, *arguments)

        monkeypatch.setattr(Prober, "run", run)
        with searching(job(), sensitivity="hybrid") as search:
            found = allocated(search)
            assert set(probed) == {8}
            assert len(search.sample_noises([search.plan(found.choices)])[0]) == 8

    def test_the_noise_they_predict_is_nearer_that_on_other_calls(self, monkeypatch):
        """Each sample is of one token: Gram matrices of so few fit them closely."""
        given = job(bits=3)
        tokens = [((args[0][:, :1],), kwargs) for args, kwargs in calls(64, 4)]
        recorded = completed_calls(given.denoiser, tokens)
        given, fresh = replace(given, calls=recorded[:16]), recorded[16:]

        def error() -> float:
            with searching(given, sensitivity="probes", probes=256) as search:
                found = allocated(search)
                plan = search.plan(found.choices)
                original = Original(given.denoiser, tuple(fresh), final_calibration(search, plan))
                task = Task(PlanChange(plan), Noise())
                real = measure([task], InProcess(original), Journal(None, {}))[0]["noise"]
                return abs(found.losses.of_plan(found.choices) / real - 1)

        apart = error()
        monkeypatch.setattr("mezzotint.recipes.auto.divided_samples.FEWEST", 1000)
        assert apart < 0.3 * error()

    def test_the_notes_say_which_samples_the_plan_was_judged_on(self):
        with searching(job()) as search:
            notes = checked(search, allocated(search)).found.notes
        assert "to noise on every 4th of 32 recorded samples, held out" in notes[-1]

    @pytest.mark.parametrize(
        "options",
        [{"rounding": "nearest"}, {"rounding": "nearest", "bias_correction": "never"}],
        ids=["biases-tried", "nothing-fitted"],
    )
    def test_all_samples_judge_where_no_rounding_fits_any(self, options):
        with searching(job(), **options) as search:
            assert not search.samples.apart
            assert search.measuring.original.calls == search.study.calls


class TestBytes:
    def test_the_stored_model_is_the_plan_calibrated_on_all_calls(self):
        given = job()
        options = mz.Auto(**{**QUICK, "activation": None, "inputs": ("uint8/tensor", "float")})
        outcome = run_recipe(options, replace(given, calls=None), given.calls)
        again = calibrated(given.denoiser, outcome.plan, given.calls)
        stored, repeated = (
            packed_copy(given.denoiser, outcome.plan, each).state_dict()
            for each in (outcome.calibration, again)
        )
        assert all(torch.equal(stored[name], repeated[name]) for name in repeated)
        assert stored.keys() == repeated.keys()


class TestJournal:
    def test_measurements_of_held_out_samples_serve_no_run_that_judges_on_all(
        self, monkeypatch, tmp_path
    ):
        module, recorded = Chain(peak=1.0).eval(), calls(8, 4)
        recipe, budget = mz.Auto(**QUICK, sensitivity="measured"), mz.Budget(4.7, act_bits=16)

        def run(fewest: int, journal: str) -> mz.ModuleResult:
            monkeypatch.setattr("mezzotint.recipes.auto.divided_samples.FEWEST", fewest)
            return mz.quantize_module(module, recorded, recipe, budget, journal=tmp_path / journal)

        first = run(4, "shared.jsonl")
        asked = watched(monkeypatch)
        assert run(4, "shared.jsonl").plan == first.plan
        assert asked == []
        shared, alone = run(1000, "shared.jsonl"), run(1000, "alone.jsonl")
        assert shared.measurements == alone.measurements != first.measurements
