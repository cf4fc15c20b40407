"""The recipe from pipeline to plan; every switch changes what it is about."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from torch import nn

import mezzotint as mz
from mezzotint.errors import (
    CalibrationError,
    CalibrationWarning,
    InfeasibleBudgetError,
    ProbeError,
    UsageError,
)
from mezzotint.measuring import InputChange, Prober
from mezzotint.models import LayerGroup
from mezzotint.recipes import MixDQ
from mezzotint.recipes.found_structures import zeroes_prompts
from mezzotint.recipes.mixdq import deciding, selection
from mezzotint.recipes.mixdq.programs import Programs, Sensitivity
from mezzotint.runtime import module_bytes, packed_layers
from tests.models import tiny
from tests.recipes.watching import watched


def ruined(method, candidates, *label):
    return [float("inf")] * len(candidates)


def weight_bits(result: mz.Result) -> dict[str, int]:
    return {n: int(c.weight_format.bits) for n, c in result.plan.quantized.items()}


def nominal_average(result: mz.Result, unet: nn.Module) -> float:
    sizes = {n: unet.get_submodule(n).weight.numel() for n in result.plan.quantized}
    spent = sum(bits * sizes[name] for name, bits in weight_bits(result).items())
    return spent / sum(sizes.values())


def test_every_layer_is_packed_with_candidate_widths(quantize, pipe):
    result = quantize()
    assert set(packed_layers(result.denoiser)) == set(result.plan.quantized)
    assert set(weight_bits(result).values()) <= {2, 4, 8}
    kinds = (nn.Linear, nn.Conv2d)
    assert len(result.plan) == sum(type(m) in kinds for m in pipe.unet.modules())


def test_content_is_measured_by_images_and_quality_by_outputs(quantize, prepare):
    result = quantize()
    with prepare() as method:
        for name, scores in result.measurements.items():
            kind = "ssim" if method.groups[name] is LayerGroup.CONTENT else "noise"
            assert all(figures.keys() == {kind} for figures in scores.values())


@pytest.mark.parametrize("bits", [5.6, 6.0])
def test_stored_bits_keep_to_the_budget(quantize, pipe, bits):
    result = quantize(mz.Budget(weight_bits=bits, act_bits=16), split="none")
    weights = sum(m.weight.numel() for m in pipe.unet.modules() if hasattr(m, "in_features")
                  or isinstance(m, nn.Conv2d))  # fmt: skip
    packed = packed_layers(result.denoiser).values()
    biases = sum(layer.bias.nbytes for layer in packed if layer.bias is not None)
    stored = sum(module_bytes(layer) for layer in packed) - biases
    assert stored * 8 / weights <= bits


def test_nominal_bits_count_widths_alone(quantize, pipe):
    nominal = quantize(mz.Budget(weight_bits=5.5), counting="nominal", split="none")
    stored = quantize(mz.Budget(weight_bits=5.5), counting="stored", split="none")
    assert nominal_average(stored, pipe.unet) < nominal_average(nominal, pipe.unet) <= 5.5


def test_a_size_in_bytes_is_kept(quantize, pipe):
    size = int(module_bytes(pipe.unet) * 0.3)
    result = quantize(mz.Budget(size=size), split="none")
    assert module_bytes(result.denoiser) <= size


def test_inputs_have_eight_bits_and_the_most_sensitive_stay_floating(quantize):
    plan = quantize().plan
    floating = {name for name, choice in plan.choices.items() if choice.activation == "float"}
    assert len(floating) == 2  # one in each group
    assert all("input stays floating" in plan.reasons[name] for name in floating)


def test_the_plan_lists_the_inputs_that_its_average_leaves_out(quantize):
    plan = quantize().plan
    floating = [name for name, choice in plan.choices.items() if choice.activation == "float"]
    assert plan.context["protected_inputs"] == sorted(floating)


def test_nothing_is_protected_where_nobody_asks_for_it(quantize):
    assert {c.activation for c in quantize(protect=0.0).plan.choices.values()} == {"uint8/tensor"}


def test_average_input_bits_below_eight_mix_widths(quantize):
    plan = quantize(mz.Budget(weight_bits=8.5, act_bits=6.5), split="none").plan
    found = {choice.activation for choice in plan.choices.values()}
    assert {"uint4/tensor", "uint8/tensor"} <= found


def test_sixteen_bit_activations_leave_inputs_alone(quantize):
    plan = quantize(mz.Budget(weight_bits=5.5, act_bits=16), split="none").plan
    assert {choice.activation for choice in plan.choices.values()} == {"float"}


def test_counting_multiplications_weighs_inputs_differently(quantize):
    budget = mz.Budget(weight_bits=8.5, act_bits=6.5)
    by_bytes = quantize(budget, activation_cost="bytes", split="none").plan
    by_macs = quantize(budget, activation_cost="macs", split="none").plan
    assert by_bytes.choices != by_macs.choices


def test_the_sweep_picks_the_division_of_the_least_image_error(quantize):
    summary = quantize(split="sweep").plan.context["weights"]
    assert summary["candidates"] > 1
    assert summary["image_mse"] < summary["worst_image_mse"]


def test_the_joint_program_finds_a_unit(quantize):
    summary = quantize(split="joint", joint_plans=4).plan.context["weights"]
    assert summary["unit"].keys() == {"content", "quality"}
    assert 4 < summary["candidates"] <= 4 + 3


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"split": "none"}, {"split": "sweep"}),
        ({"split": "none"}, {"split": "joint", "joint_plans": 4}),
        ({"split": "none"}, {"split": "none", "tolerance": 0.3}),
    ],
    ids=["even or swept", "even or joint", "one-sided or two-sided"],
)
def test_the_way_to_divide_changes_the_plan(quantize, one, other):
    assert quantize(**one).plan.choices != quantize(**other).plan.choices


def test_the_ablation_measures_everything_by_the_output(quantize):
    result = quantize(metric="sqnr")
    scores = [s for layer in result.measurements.values() for s in layer.values()]
    assert all(score.keys() == {"noise"} for score in scores)
    assert result.plan.choices != quantize().plan.choices


def test_dynamic_inputs_need_no_ranges(pipe, sampling):
    options = MixDQ(activation="token", split="none", metric="sqnr")
    plan = mz.quantize(pipe, options, mz.Budget(weight_bits=5.5), sampling=sampling).plan
    assert {"int8/token", "float"} == {choice.activation for choice in plan.choices.values()}


def test_symmetric_weights_are_measured_and_packed(pipe, sampling):
    options = MixDQ(symmetric=True, split="none", metric="sqnr")
    budget = mz.Budget(weight_bits=5.5, act_bits=16)
    plan = mz.quantize(pipe, options, budget, sampling=sampling).plan
    assert all(choice.weight.startswith("int") for choice in plan.choices.values())


def test_another_momentum_measures_inputs_of_static_ranges_anew(
    pipe, sampling, journal, tmp_path, monkeypatch
):
    mine = Path(shutil.copy(journal, tmp_path / "journal"))
    asked = watched(monkeypatch)
    options = MixDQ(momentum=0.5, split="none", selection_prompts=1)
    mz.quantize(pipe, options, mz.Budget(weight_bits=5.5), sampling=sampling, journal=mine)
    assert asked
    assert all(isinstance(task.change, InputChange) for task in asked)


def test_another_image_decoder_measures_what_compares_images_anew(
    pipe, sampling, journal, tmp_path, monkeypatch
):
    mine = Path(shutil.copy(journal, tmp_path / "journal"))
    for weight in pipe.vae.parameters():
        weight.data.mul_(1.3)
    asked = watched(monkeypatch)
    options = MixDQ(split="none", selection_prompts=1)
    mz.quantize(pipe, options, mz.Budget(weight_bits=5.5), sampling=sampling, journal=mine)
    assert asked
    assert {task.metric.sees for task in asked} == {"images"}


def test_a_finished_journal_measures_nothing_again(quantize, journal):
    quantize(split="none")
    before = journal.read_bytes()
    quantize(split="none")
    assert journal.read_bytes() == before


def test_a_journal_cut_short_resumes_to_the_same_plan(pipe, sampling, journal, tmp_path, quantize):
    whole = quantize(split="none").plan
    cut = tmp_path / "cut.jsonl"
    shutil.copy(journal, cut)
    lines = cut.read_bytes().splitlines(keepends=True)
    cut.write_bytes(b"".join(lines[: len(lines) // 2]) + b'{"unit": "half a li')
    options = MixDQ(split="none", selection_prompts=1)
    resumed = mz.quantize(pipe, options, mz.Budget(weight_bits=5.5), sampling=sampling,
                          journal=cut)  # fmt: skip
    assert resumed.plan.choices == whole.choices


def test_a_budget_for_everything_needs_no_measurements(pipe, sampling):
    options = MixDQ(protect=0.0, counting="nominal")
    result = mz.quantize(pipe, options, mz.Budget(weight_bits=8), sampling=sampling)
    assert not result.measurements
    assert set(weight_bits(result).values()) == {8}


def test_an_average_below_the_narrowest_is_refused_before_calibrating(pipe, sampling, tmp_path):
    path = tmp_path / "journal.jsonl"
    with pytest.raises(InfeasibleBudgetError, match="weight_bits 2"):
        mz.quantize(pipe, "mixdq", mz.Budget(weight_bits=2), sampling=sampling, journal=path)
    assert not path.exists()


@pytest.mark.parametrize("options", [{}, {"split": "joint", "joint_plans": 2}, {"metric": "sqnr"}],
                         ids=["sweep", "joint", "sqnr"])  # fmt: skip
def test_what_a_refusal_names_as_feasible_is(quantize, pipe, options):
    with pytest.raises(InfeasibleBudgetError) as refused:
        quantize(mz.Budget(weight_bits=1))
    bits = re.search(r"need ([\d.]+) bits", str(refused.value))[1]
    with pytest.raises(InfeasibleBudgetError) as refused:
        quantize(mz.Budget(size=1))
    size = int(re.search(r"takes (\d+) bytes", str(refused.value))[1])
    assert quantize(mz.Budget(weight_bits=float(bits)), **options)
    assert module_bytes(quantize(mz.Budget(size=size), **options).denoiser) <= size


def test_a_window_out_of_reach_is_refused_before_calibrating(pipe, sampling, tmp_path):
    path = tmp_path / "journal.jsonl"
    options = MixDQ(split="joint", tolerance=0.02)
    with pytest.raises(InfeasibleBudgetError, match=r"weight_bits: from 11\.98 to 12\.02"):
        mz.quantize(pipe, options, mz.Budget(weight_bits=12), sampling=sampling,
                    journal=path)  # fmt: skip
    assert not path.exists()


def test_inputs_that_cannot_be_met_are_refused_before_calibrating(pipe, sampling, tmp_path):
    path, budget = tmp_path / "journal.jsonl", mz.Budget(weight_bits=5.5, act_bits=3)
    with pytest.raises(InfeasibleBudgetError, match="act_bits 3"):
        mz.quantize(pipe, "mixdq", budget, sampling=sampling, journal=path)
    assert not path.exists()


def test_a_size_does_not_go_with_a_window(quantize):
    with pytest.raises(UsageError, match="tolerance"):
        quantize(mz.Budget(size="1MB"), tolerance=0.1)


@pytest.mark.parametrize(
    ("errors", "best"), [([float("inf"), 0.2, 0.1], 2), ([0.1, float("inf")], 0)], ids=str
)
def test_ruined_images_never_win(prepare, monkeypatch, errors, best):
    monkeypatch.setattr(selection, "image_errors", lambda method, candidates: errors)
    with prepare() as method:
        assert selection.nearest(method, [{} for _ in errors])[0] == best


def test_images_that_are_ruined_under_every_plan_are_an_error(prepare, monkeypatch):
    monkeypatch.setattr(selection, "image_errors", ruined)
    with prepare() as method, pytest.raises(CalibrationError, match="each of 2 plans"):
        selection.nearest(method, [{}, {}])


def test_the_joint_program_refuses_ruined_images_too(prepare, monkeypatch):
    monkeypatch.setattr(deciding, "image_errors", ruined)
    layers = {"a": Sensitivity(LayerGroup.CONTENT, {2: 1.0, 8: 2.0}, {2: 0.5, 8: 0.1})}
    programs = Programs("weight_bits", layers, {"a": 1.0}, 4.0)
    options = MixDQ(split="joint", joint_plans=2)
    with prepare(options) as method, pytest.raises(CalibrationError, match="NaN or infinity"):
        deciding.decide(method, programs, lambda widths: {})
    with prepare(options) as method, pytest.raises(CalibrationError, match="NaN or infinity"):
        deciding.decide(method, programs, lambda widths: {}, base=float("inf"))


def test_a_pipeline_that_zeroes_negative_prompts_is_noted(prepare, monkeypatch):
    parts = ("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "unet")
    sdxl = StableDiffusionXLPipeline(**dict.fromkeys((*parts, "scheduler")))
    assert zeroes_prompts(sdxl)
    with prepare() as method:
        assert not zeroes_prompts(method.study.job.pipe)
        assert not method.study.structures.notes
    monkeypatch.setattr("mezzotint.recipes.found_structures.zeroes_prompts", lambda pipe: True)
    with prepare() as method:
        assert "give a negative prompt" in " ".join(method.study.structures.notes)
    with prepare(prompts=("owl",)) as method:
        assert not method.study.structures.constants
        assert "set negative_prompt" in " ".join(method.study.structures.notes)


def test_a_size_goes_with_stored_bits_only(quantize):
    with pytest.raises(UsageError, match="counting=nominal"):
        quantize(mz.Budget(size="1MB"), counting="nominal")


def test_the_result_reloads_bit_for_bit(quantize, tmp_path, pipe, sampling):
    result = quantize()
    loaded = mz.load(result.save(tmp_path / "out"))
    own = mz.generate(result.pipeline, sampling)
    assert (own == mz.generate(loaded, sampling)).all()
    assert loaded.unet.hf_quantizer.plan.choices == result.plan.choices


def test_the_pipeline_is_left_as_it_was(quantize, pipe):
    before = {name: tensor.clone() for name, tensor in pipe.unet.state_dict().items()}
    quantize()
    after = pipe.unet.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_weights_are_rounded_with_feedback_unless_asked_otherwise(pipe, sampling):
    one = {"content_weight_bits": (4,), "quality_weight_bits": (4,), "metric": "sqnr"}
    budget = mz.Budget(weight_bits=9, act_bits=16)
    results = {
        rounding: mz.quantize(pipe, MixDQ(**one, rounding=rounding), budget, sampling=sampling)
        for rounding in ("feedback", "nearest")
    }
    for rounding, result in results.items():
        assert result.plan.encoding.rounding == rounding
    one, other = (dict(result.denoiser.state_dict()) for result in results.values())
    assert any(not torch.equal(one[name], other[name]) for name in one)
    assert MixDQ().rounding == "feedback"


def test_a_screen_measures_less_for_nearly_the_same_plan(pipe, sampling, monkeypatch):
    options = {"metric": "sqnr", "protect": 0.0, "content_weight_bits": (2, 4, 6, 8)}
    budget = mz.Budget(weight_bits=4, act_bits=16)
    pipe.register_modules(unet=tiny.tiny_unet())
    asked = watched(monkeypatch)
    full = mz.quantize(pipe, MixDQ(**options), budget, sampling=sampling)
    every = len(asked)
    asked.clear()
    screened = mz.quantize(pipe, MixDQ(**options, screen=True), budget, sampling=sampling)
    assert 0 < len(asked) < 0.95 * every

    def noise(result: mz.Result) -> float:
        return sum(full.measurements[n][c]["noise"] for n, c in result.plan.choices.items())

    assert noise(full) <= noise(screened) < 1.05 * noise(full)


def test_nothing_is_left_out_of_a_model_that_cannot_be_probed(pipe, sampling, monkeypatch):
    def failing(*_: object) -> None:
        raise ProbeError("call 0: the backward pass fails")

    monkeypatch.setattr(Prober, "run", failing)
    options = {"metric": "sqnr", "protect": 0.0, "content_weight_bits": (2, 4, 8)}
    budget = mz.Budget(weight_bits=5.5, act_bits=16)
    full = mz.quantize(pipe, MixDQ(**options), budget, sampling=sampling)
    with pytest.warns(CalibrationWarning, match="nothing is left out: call 0: the backward"):
        screened = mz.quantize(pipe, MixDQ(**options, screen=True), budget, sampling=sampling)
    assert screened.plan.choices == full.plan.choices


def test_a_screen_of_images_counts_what_it_skips_as_unchanged(pipe, sampling, monkeypatch):
    options = MixDQ(split="none", selection_prompts=1, protect=0.0, screen=True)
    result = mz.quantize(pipe, options, mz.Budget(5, act_bits=16), sampling=sampling)
    scores = [
        f["ssim"] for each in result.measurements.values() for f in each.values() if "ssim" in f
    ]
    assert max(scores) == 1.0
    assert min(scores) < 1.0
