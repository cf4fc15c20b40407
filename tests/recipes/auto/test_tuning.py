"""Scales, biases and norms of the plan that was found are trained, where that is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import mezzotint as mz
from mezzotint.errors import JournalError, UsageError
from mezzotint.recipes.auto.recipe import TUNED
from mezzotint.recipes.job import training_folder
from mezzotint.runtime import module_bytes
from tests.recipes.auto.denoisers import Chain, calls

QUICK = {
    "formats": ("int4/channel", "int8/channel"),
    "sensitivity": "probes",
    "probes": 8,
    "regret": 1e9,
    "exchanges": False,
    "bias_correction": "never",
}
BUDGET = mz.Budget(weight_bits=5)


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tuning") / "run.journal.jsonl"


@pytest.fixture(scope="module")
def found(folder, sampling) -> mz.Result:
    return mz.quantize(mz.load(folder), mz.Auto(**QUICK), BUDGET, sampling=sampling)


@pytest.fixture(scope="module")
def tuned(folder, sampling, journal) -> mz.Result:
    return mz.quantize(
        mz.load(folder), mz.Auto(**QUICK, tune_steps=2), BUDGET, sampling=sampling, journal=journal
    )


def test_formats_bytes_and_codes_stay(found, tuned):
    assert tuned.plan.choices == found.plan.choices
    assert module_bytes(tuned.denoiser) == module_bytes(found.denoiser)
    one, other = found.denoiser.state_dict(), tuned.denoiser.state_dict()
    codes = [name for name in one if name.endswith("codes")]
    assert codes
    assert all(torch.equal(one[name], other[name]) for name in codes)


def test_scales_and_norms_are_trained(found, tuned):
    one, other = found.denoiser.state_dict(), tuned.denoiser.state_dict()
    changed = {name for name in one if not torch.equal(one[name], other[name])}
    assert any("norm" in name for name in changed)
    assert any(name.endswith("bias") for name in changed)


def test_the_curve_and_the_measurements_are_in_the_result(found, tuned):
    assert tuned.training.to_dict()["updates"] == 2
    assert tuned.training.to_dict()["options"]["train"] == "scales"
    assert tuned.measurements == found.measurements
    assert TUNED in tuned.plan.context["notes"]
    assert found.training is None
    assert TUNED not in found.plan.context["notes"]


def test_it_goes_on_where_it_was(pipe, sampling, journal, tuned):
    """Nothing is measured or trained again."""
    again = mz.quantize(
        pipe, mz.Auto(**QUICK, tune_steps=2), BUDGET, sampling=sampling, journal=journal
    )
    # Minutes are those of a clock: no other training has the same.
    assert again.training.to_dict() == tuned.training.to_dict()
    one, other = tuned.denoiser.state_dict(), again.denoiser.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_who_asks_for_no_training_is_not_held_up_by_one(folder, sampling, journal, tuned, found):
    again = mz.quantize(
        mz.load(folder), mz.Auto(**QUICK), BUDGET, sampling=sampling, journal=journal
    )
    assert again.training is None
    assert again.plan.encodings == found.plan.encodings


def test_what_it_has_come_to_can_be_taken(folder, sampling, journal, tuned):
    again = mz.quantize(
        mz.load(folder),
        mz.Auto(**QUICK, tune_minutes=0),
        BUDGET,
        sampling=sampling,
        journal=journal,
    )
    one, other = tuned.denoiser.state_dict(), again.denoiser.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_training_of_other_options_is_named(pipe, sampling, journal, tuned):
    assert training_folder(journal).is_dir()
    with pytest.raises(JournalError, match=r"was begun with options\.steps = 2"):
        mz.quantize(
            pipe, mz.Auto(**QUICK, tune_steps=3), BUDGET, sampling=sampling, journal=journal
        )


def test_a_bare_module_is_not_tuned():
    with pytest.raises(UsageError, match="tune_minutes: training runs a pipeline"):
        mz.quantize_module(Chain().eval(), calls(), mz.Auto(**QUICK, tune_minutes=1), BUDGET)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"tune_minutes": -1.0}, "tune_minutes: is -1"),
        ({"tune_minutes": float("inf")}, "tune_minutes: is inf"),
        ({"tune_steps": -1}, "tune_steps: is -1"),
        ({"tune_steps": 1, "tune_minutes": 1.0}, "stands in place of tune_minutes"),
    ],
    ids=str,
)
def test_wrong_lengths_are_refused(options, named):
    with pytest.raises(UsageError, match=named):
        mz.Auto(**options)
