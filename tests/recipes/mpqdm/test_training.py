"""The recipe with a few updates of training: packed for real, resumed, refused."""

from __future__ import annotations

import json

import pytest
import torch

import mezzotint as mz
from mezzotint.calibration import input_ranges
from mezzotint.checkpoint import TRAINING_FILE
from mezzotint.errors import JournalError, PlanError, UsageError
from mezzotint.formats import MINMAX
from mezzotint.models import record_calls
from mezzotint.recipes.job import training_folder
from mezzotint.runtime import module_bytes

BUDGET = mz.Budget(weight_bits=2, act_bits=4)


@pytest.fixture(scope="module")
def call(pipe, sampling):
    return record_calls(pipe, sampling, limit=1)[0]


def output(pipe, call) -> torch.Tensor:
    with torch.no_grad():
        return call.run(pipe.unet)


def test_all_but_exceptions_are_trained(quantize):
    plan = quantize(train_steps=2).plan
    exceptions = {name for names in plan.context["exceptions"].values() for name in names}
    assert set(plan.trained) == set(plan.quantized) - exceptions
    assert plan.trained


def test_formats_and_bytes_are_those_of_the_untrained_plan(quantize):
    trained, untrained = quantize(train_steps=2), quantize()
    assert trained.plan.choices == untrained.plan.choices
    assert module_bytes(trained.denoiser) == module_bytes(untrained.denoiser)
    assert trained.plan.context["bits"] == untrained.plan.context["bits"]


def test_the_plan_keeps_its_reasons(quantize):
    assert quantize(train_steps=2).plan.reasons == quantize().plan.reasons


@pytest.mark.parametrize(
    "change",
    [
        {"feature_loss": "none"},
        {"feature_loss": "l2"},
        {"train": "weights"},
        {"rank": 2, "lora_init": "svd"},
        {"trd_graph": "stop"},
        {"rates": "published"},
        {"trajectory": "mixed", "own_share": 1.0},
        {"temperature": 1.0, "relation_weight": 100.0},
        {"train_steps": 0},
    ],
    ids=str,
)
def test_every_switch_of_training_changes_the_packed_output(quantize, call, change):
    usual = {"train_steps": 2, "autocast": False}
    one, other = quantize(**usual), quantize(**usual | change)
    assert not torch.equal(output(one.pipeline, call), output(other.pipeline, call))


def test_the_curve_is_kept_with_the_checkpoint(quantize, tmp_path):
    result = quantize(train_steps=2)
    folder = result.save(tmp_path / "saved")
    curve = json.loads((folder / TRAINING_FILE).read_text("utf-8"))
    assert curve["updates"] == 2
    assert curve == json.loads(json.dumps(result.training.to_dict()))


def test_trained_weights_are_loaded_from_the_checkpoint(quantize, call, tmp_path):
    result = quantize(train_steps=2)
    again = mz.load(result.save(tmp_path / "saved"))
    assert torch.allclose(output(again, call), output(result.pipeline, call), atol=1e-5)


def test_trained_weights_cannot_be_made_again_from_the_plan(quantize, pipe):
    with pytest.raises(PlanError, match="stands in the checkpoint"):
        mz.apply(pipe, quantize(train_steps=2).plan)


def test_a_training_that_is_done_is_not_repeated(pipe, sampling, call, tmp_path):
    journal = tmp_path / "one.journal.jsonl"

    def run() -> mz.Result:
        options = mz.MPQDM(train_steps=2, ranges=MINMAX)
        return mz.quantize(pipe, options, BUDGET, sampling=sampling, journal=journal)

    first = run()
    assert training_folder(journal).is_dir()
    again = run()
    assert torch.equal(output(first.pipeline, call), output(again.pipeline, call))
    # Minutes are those of a clock: no other training has the same.
    assert again.training.to_dict() == first.training.to_dict()


def test_other_options_do_not_go_on_with_it(pipe, sampling, tmp_path):
    journal = tmp_path / "run.journal.jsonl"
    mz.quantize(
        pipe, mz.MPQDM(train_steps=1, ranges=MINMAX), BUDGET, sampling=sampling, journal=journal
    )
    other = mz.MPQDM(train_steps=1, ranges=MINMAX, temperature=0.5)
    with pytest.raises(JournalError, match="temperature"):
        mz.quantize(pipe, other, BUDGET, sampling=sampling, journal=journal)


def test_a_folder_of_something_else_is_left_alone(pipe, sampling, tmp_path):
    journal = tmp_path / "run.journal.jsonl"
    folder = training_folder(journal)
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="something else than a training"):
        mz.quantize(
            pipe, mz.MPQDM(train_steps=1, ranges=MINMAX), BUDGET, sampling=sampling, journal=journal
        )
    assert (folder / "mine.txt").read_text() == "mine"


def test_a_module_alone_cannot_be_trained(pipe, sampling):
    calls = record_calls(pipe, sampling)
    with pytest.raises(UsageError, match="train_minutes: training runs a pipeline"):
        mz.quantize_module(pipe.unet, calls, mz.MPQDM(train_steps=1, ranges=MINMAX), BUDGET)


@pytest.fixture(scope="module")
def plan(pipe):
    """Four bits everywhere, with scales in which the least change shows."""
    names = mz.uniform_plan(pipe.unet, weight_bits=4).choices
    return mz.Plan(dict.fromkeys(names, mz.Choice("int4/channel/float32", "int8/token")), "tiny")


class TestTune:
    def test_no_byte_is_added_and_weights_keep_their_codes(self, pipe, plan):
        before, after = mz.apply(pipe, plan), mz.tune(pipe, plan, steps=2)
        assert after.plan.choices == plan.choices
        assert module_bytes(after.denoiser) == module_bytes(before.denoiser)
        one, other = before.denoiser.state_dict(), after.denoiser.state_dict()
        codes = [name for name in one if name.endswith("codes")]
        assert len(codes) == len(plan.quantized)
        assert all(torch.equal(one[name], other[name]) for name in codes)

    def test_scales_biases_and_norms_change(self, pipe, plan):
        before, after = mz.apply(pipe, plan).denoiser, mz.tune(pipe, plan, steps=2).denoiser
        changed = {
            name
            for name, tensor in before.state_dict().items()
            if not torch.equal(tensor, after.state_dict()[name])
        }
        ends = {name.rpartition(".")[2] for name in changed}
        assert any("scale" in end for end in ends)
        assert {"bias", "weight"} <= ends
        assert any("norm" in name for name in changed)

    def test_static_inputs_are_calibrated_and_tuned(self, pipe, sampling):
        choices = {"conv_in": mz.Choice("int4/channel", "uint8/tensor")}
        result = mz.tune(pipe, mz.Plan(choices), steps=2, sampling=sampling)
        calls = record_calls(pipe, sampling)
        (found,) = input_ranges(pipe.unet, choices, calls, momentum=None)["conv_in"]
        first = choices["conv_in"].activation_format.range_parameters(
            found.low, found.high, torch.device("cpu")
        )[0]
        assert not torch.equal(result.denoiser.conv_in.get_buffer("input_scale"), first)

    def test_a_plan_of_another_model_is_refused(self, pipe):
        with pytest.raises(PlanError, match="another model"):
            mz.tune(pipe, mz.Plan({"elsewhere": mz.Choice("int4/channel")}), steps=1)

    def test_minutes_and_updates_exclude_each_other(self, pipe, plan):
        with pytest.raises(UsageError, match="minutes or steps"):
            mz.tune(pipe, plan, minutes=1, steps=1)

    def test_trained_weights_are_refused(self, pipe, quantize):
        with pytest.raises(PlanError, match="tuning begins with the original"):
            mz.tune(pipe, quantize(train_steps=2).plan, steps=1)


def test_no_journal_leaves_no_folder(quantize, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quantize(train_steps=2)
    assert not list(tmp_path.iterdir())
