"""The recipe, from a folder of labels to a packed pipeline."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor

import mezzotint as mz
from mezzotint.checkpoint import read_plan
from mezzotint.errors import (
    BankError,
    InfeasibleBudgetError,
    LabelError,
    PredictorError,
    UsageError,
)
from mezzotint.predictors import Ensemble
from mezzotint.recipes import parse_options, recipe_named
from mezzotint.recipes.labelled import labelled_model
from mezzotint.recipes.labelling import sample_labels
from mezzotint.recipes.qua2sedimo.all_formats import program_options
from mezzotint.recipes.qua2sedimo.like_labels import bank_name
from mezzotint.runtime import ConstantTokens, module_bytes
from tests.recipes.qua2sedimo.conftest import FORMATS, LABELS

SAMPLING = mz.Sampling(prompts=("owl", "red apple"))


def planned(pipe, labels, bits=3.7, act_bits=16, journal=None, **options):
    options = {"predictor": "ridge-choices"} | options
    recipe = mz.Qua2SeDiMo(labels=str(labels), **options)
    budget = mz.Budget(weight_bits=bits, act_bits=act_bits)
    return mz.quantize(pipe, recipe, budget, sampling=SAMPLING, journal=journal)


def weight_formats(result):
    return {name: choice.weight for name, choice in result.plan.quantized.items()}


def test_the_stored_bits_are_those_asked_for(pipe, labels_folder):
    result = planned(pipe, labels_folder)
    assert 3.7 * 0.995 <= result.plan.context["stored_bits"] <= 3.7
    assert set(weight_formats(result).values()) <= {*FORMATS}
    assert result.plan.context["labels"] == 40


def test_a_size_is_kept_to(pipe, labels_folder):
    whole = planned(pipe, labels_folder)
    size = module_bytes(whole.denoiser)
    recipe = mz.Qua2SeDiMo(labels=str(labels_folder), predictor="ridge-choices")
    budget = mz.Budget(size=size, act_bits=16)
    result = mz.quantize(pipe, recipe, budget, sampling=SAMPLING)
    assert module_bytes(result.denoiser) <= size
    assert weight_formats(result) == weight_formats(whole)


def test_the_bank_s_weights_are_packed(pipe, labels_folder):
    """A plan of the recipe is what packing it anew gives."""
    result = planned(pipe, labels_folder)
    again = mz.apply(pipe, result.plan)
    for (name, one), (other, two) in zip(
        result.denoiser.state_dict().items(), again.denoiser.state_dict().items(), strict=True
    ):
        assert name == other
        assert torch.equal(one, two), name


def test_weights_rounded_with_feedback_can_be_packed_again(pipe, tmp_path):
    """The plan says which calls the bank's rounding has looked at."""
    options = replace(LABELS, count=20, formats=FORMATS[:2], rounding="feedback")
    sample_labels(pipe, tmp_path / "labels", options)
    result = planned(pipe, tmp_path / "labels", bits=4.0)
    again = mz.apply(pipe, result.plan)
    codes = again.denoiser.state_dict()
    for name, one in result.denoiser.state_dict().items():
        assert torch.equal(one, codes[name]), name


@pytest.mark.parametrize("rounding", ["nearest", "feedback"])
def test_labels_may_keep_first_tokens_out_of_quantizers(pipe, labels_folder, tmp_path, rounding):
    """So do the plans that are made of them, and the model is what was labelled."""
    options = replace(LABELS, bos=True, rounding=rounding)
    labels = sample_labels(pipe, tmp_path / "labels", options)
    assert labels.context["bos"]
    without = labelled_model(labels_folder).labels
    assert not np.equal(labels.values, without.values).any()
    result = planned(pipe, tmp_path / "labels", bits=4.3, predictor="ridge-noises")
    readers = {n for n, each in result.plan.choices.items() if ConstantTokens(1) in each.structures}
    assert readers == {n for n in result.plan.choices if n.endswith(("attn2.to_k", "attn2.to_v"))}
    again = mz.apply(pipe, result.plan)
    for name, tensor in result.denoiser.state_dict().items():
        assert torch.equal(tensor, again.denoiser.state_dict()[name]), name


def test_it_does_better_than_the_worst_of_as_many_bits(pipe, labels_folder):
    best, worst = (planned(pipe, labels_folder, reverse=reverse) for reverse in (False, True))
    assert weight_formats(best) != weight_formats(worst)


@pytest.mark.parametrize("act_bits", [8, 6])
def test_inputs_have_the_budget_s_width(pipe, labels_folder, act_bits):
    result = planned(pipe, labels_folder, act_bits=act_bits)
    names = {choice.activation for choice in result.plan.quantized.values()}
    assert names == {f"int{act_bits}/token"}


def test_a_published_level_makes_a_plan(pipe, labels_folder):
    options = {"level": "op", "predictor": "network", "epochs": 3, "trainings": 2}
    result = planned(pipe, labels_folder, bits=4.4, **options)
    assert result.plan.context["stored_bits"] <= 4.4
    assert "*bits" in result.plan.context["target"]


def test_predictors_that_read_noises_get_them_from_probes(pipe, labels_folder, tmp_path):
    journal = tmp_path / "plan.journal.jsonl"
    result = planned(pipe, labels_folder, predictor="ridge-noises", journal=journal)
    assert result.plan.context["predictor"] == "ridge-noises"
    assert "probe" in journal.read_text()


def test_a_second_round_measures_near_the_answer(pipe, labels_folder, tmp_path):
    before = (labels_folder / "labels.jsonl").read_bytes()
    journal = tmp_path / "plan.journal.jsonl"
    result = planned(pipe, labels_folder, second_round=6, journal=journal)
    assert 40 < result.plan.context["labels"] <= 47
    units = [json.loads(line).get("unit", "") for line in journal.read_text().splitlines()]
    measured = [unit for unit in units if unit.startswith("configuration ")]
    assert len(measured) == 7
    labelled = labelled_model(labels_folder)
    name = bank_name(labelled.bank, labelled.space)
    assert all(f" of bank {name} | " in unit for unit in measured)
    assert (labels_folder / "labels.jsonl").read_bytes() == before


@pytest.mark.parametrize("changed", [{"formats": FORMATS[::-1]}, {"rounding": "feedback"}], ids=str)
def test_measurements_of_other_banks_are_told_apart(pipe, labels_folder, tmp_path, changed):
    """One journal serves recipes whose labels are of other formats, or rounded otherwise."""
    sample_labels(pipe, tmp_path / "labels", replace(LABELS, count=2, **changed))
    one, other = map(labelled_model, (labels_folder, tmp_path / "labels"))
    assert one.space.keys == other.space.keys
    assert bank_name(one.bank, one.space) != bank_name(other.bank, other.space)


def test_a_second_round_leaves_what_was_fitted_before_it(pipe, labels_folder, tmp_path):
    options = {"predictor": "network", "epochs": 2, "fitted": str(tmp_path / "fitted")}
    result = planned(pipe, labels_folder, second_round=4, **options)
    assert result.plan.context["labels"] > 40
    (kept,) = (tmp_path / "fitted").iterdir()
    assert len(Ensemble.load(kept).evidence.targets) == 40


def test_a_killed_second_round_goes_on(pipe, labels_folder, tmp_path):
    journal = tmp_path / "plan.journal.jsonl"
    first = planned(pipe, labels_folder, second_round=4, journal=journal)
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:-2]) + lines[-2][:7])
    again = planned(pipe, labels_folder, second_round=4, journal=journal)
    assert weight_formats(again) == weight_formats(first)


def test_exchanges_are_tried_on_held_out_seeds(pipe, labels_folder):
    result = planned(pipe, labels_folder, trades=3)
    told = result.plan.context["trades"]
    assert told["kept"] in (0, told["passed"])
    assert told["passed"] <= told["tried"] <= 3
    assert told["held_out_after"] <= told["held_out_before"]
    assert 3.7 * 0.995 <= result.plan.context["stored_bits"] <= 3.7


def test_simulated_attention_is_measured_saved_and_loaded(pipe, labels_folder, tmp_path):
    plain = planned(pipe, labels_folder)
    result = planned(pipe, labels_folder, simulated_attention="q6,k6,v6,softmax6")
    asked = mz.SimulatedAttention(6, 6, 6, 6)
    assert (plain.plan.simulated_attention, result.plan.simulated_attention) == (None, asked)
    assert weight_formats(result) == weight_formats(plain)
    told = result.plan.context["simulated_attention"]
    assert 0 < told["noise_alone"] < told["noise_without"]
    assert told["noise_without"] != told["noise_with"]
    assert any("attention is simulated, q6,k6,v6" in note for note in result.plan.context["notes"])
    again = mz.load(result.save(tmp_path / "simulated"))
    assert read_plan(tmp_path / "simulated").simulated_attention == asked
    images = [mz.generate(each, SAMPLING) for each in (plain.pipeline, result.pipeline, again)]
    assert not np.array_equal(images[0], images[1])
    assert np.array_equal(images[1], images[2])


def test_attention_that_cannot_be_rounded_is_refused_before_anything_is_learned(
    pipe, labels_folder, tmp_path
):
    pipe.unet.set_attn_processor(AttnProcessor())
    fitted = tmp_path / "fitted"
    options = {"simulated_attention": "8", "fitted": str(fitted)}
    refused(UsageError, "AttnProcessor2_0", pipe, labels_folder, **options)
    assert not fitted.exists()
    with pytest.raises(UsageError, match="AttnProcessor2_0"):
        mz.apply(pipe, mz.Plan({}, simulated_attention=mz.SimulatedAttention(q=8)))


def test_the_command_line_reads_simulated_attention():
    recipe = recipe_named("qua2sedimo")
    assert parse_options(recipe, {}).attention is None
    options = parse_options(recipe, {"simulated_attention": "q8,softmax6"})
    assert options.attention == mz.SimulatedAttention(q=8, softmax=6)
    with pytest.raises(UsageError, match="simulated_attention"):
        parse_options(recipe, {"simulated_attention": "many"})


@pytest.mark.parametrize(
    ("options", "usual"),
    [
        pytest.param({}, "residual", id="program"),
        pytest.param({"level": "op"}, "network", id="op"),
        pytest.param({"level": "block"}, "network", id="block"),
        pytest.param({"formats": "all"}, "best", id="all-formats"),
        pytest.param({"level": "op", "predictor": "residual"}, "residual", id="asked-for"),
    ],
)
def test_each_level_has_a_usual_predictor(options, usual):
    assert mz.Qua2SeDiMo(labels="labels", **options).learner == usual


def test_among_all_formats_labels_weigh_the_layers():
    options = mz.Qua2SeDiMo(labels="labels", formats="all", predictor="residual")
    program = program_options(options)
    assert (program.labels, program.predictor) == ("labels", "residual")
    assert {"lut2/channel", "int8/channel"} < {*program.formats}
    assert (program.mixtures, program.rounding) == ((2, 3, 4), "feedback")


def refused(error, told, pipe, labels, bits=3.7, **options):
    with pytest.raises(error, match=told):
        planned(pipe, labels, bits=bits, **options)


def test_labels_have_to_be_given(pipe):
    with pytest.raises(UsageError, match="mezzotint sample"):
        mz.quantize(pipe, "qua2sedimo", mz.Budget(weight_bits=3.7), sampling=SAMPLING)


def test_a_folder_without_labels_is_named(pipe, tmp_path):
    refused(LabelError, "holds no labels", pipe, tmp_path)


def test_labels_of_another_model_are_refused(pipe, labels_folder):
    with torch.no_grad():
        pipe.unet.conv_in.weight[0, 0, 0, 0] += 1
    refused((BankError, LabelError), "other weights", pipe, labels_folder)


def test_labels_of_other_biases_are_refused(pipe, labels_folder):
    with torch.no_grad():
        pipe.unet.conv_in.bias[0] += 1
    refused(LabelError, "another model", pipe, labels_folder)


def test_too_few_labels_say_how_many_are_missing(pipe, labels_folder, tmp_path):
    folder = tmp_path / "few"
    shutil.copytree(labels_folder, folder, symlinks=True)
    lines = (folder / "labels.jsonl").read_text().splitlines(keepends=True)
    (folder / "labels.jsonl").write_text("".join(lines[:12]))
    refused(PredictorError, "are missing", pipe, folder)


def test_a_budget_out_of_reach_names_the_nearest(pipe, labels_folder):
    refused(InfeasibleBudgetError, r"\d\.\d{3} bits", pipe, labels_folder, bits=2.0)


@pytest.mark.parametrize(
    "option",
    [{"trades": 2}, {"level": "op"}, {"caution": 1.0}, {"epochs": 5}, {"loss": "none"}],
    ids=str,
)
def test_options_without_a_meaning_among_all_formats_are_named(pipe, labels_folder, option):
    refused(UsageError, next(iter(option)), pipe, labels_folder, formats="all", **option)


@pytest.mark.parametrize(
    "option", [{"loss": "none"}, {"hop_weight": "ndcg"}, {"epochs": 5}, {"oversample": 2}], ids=str
)
def test_options_of_training_go_with_predictors_that_train(pipe, labels_folder, option):
    told = f"{next(iter(option))}: predictor 'ridge-choices' is not trained"
    refused(UsageError, told, pipe, labels_folder, predictor="ridge-choices", **option)


def test_an_unknown_predictor_is_refused_by_name(pipe, labels_folder):
    refused(UsageError, "unknown predictor 'oracle'", pipe, labels_folder, predictor="oracle")
