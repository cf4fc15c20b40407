"""The default recipe: measured noise, exact budgets, and every switch does something."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

import mezzotint as mz
from mezzotint.errors import (
    CalibrationError,
    InfeasibleBudgetError,
    JournalError,
    UsageError,
)
from mezzotint.formats import MINMAX
from mezzotint.measuring import ImageError
from mezzotint.models import text_readers
from mezzotint.recipes.costs import choice_bytes
from mezzotint.runtime import module_bytes, packed_layers
from tests.recipes.conftest import MEASURED
from tests.recipes.watching import watched

quick = partial(mz.Auto, sensitivity="measured")


def weights_of(module: nn.Module) -> int:
    return sum(m.weight.numel() for m in module.modules() if type(m) in (nn.Linear, nn.Conv2d))


def with_structure(plan: mz.Plan, kind: type) -> list[str]:
    return [
        name
        for name, choice in plan.choices.items()
        if any(isinstance(each, kind) for each in choice.structures)
    ]


def packed_bits(result: mz.Result, weights: int) -> float:
    layers = packed_layers(result.denoiser).values()
    stored = sum(tensor.nbytes for layer in layers for tensor in layer.buffers())
    return stored * 8 / weights


@pytest.mark.parametrize("bits", [3.6, 4.5, 6.0])
def test_average_bits_include_the_scales(pipe, sampling, journal, bits):
    result = mz.quantize(
        pipe, MEASURED, budget=mz.Budget(weight_bits=bits), sampling=sampling, journal=journal
    )
    found = packed_bits(result, weights_of(pipe.unet))
    assert bits - 0.1 < found <= bits


def test_a_size_is_the_bytes_of_the_whole_denoiser(pipe, sampling, journal):
    size = module_bytes(pipe.unet) // 4
    result = mz.quantize(
        pipe, MEASURED, budget=mz.Budget(size=size), sampling=sampling, journal=journal
    )
    assert 0.98 * size < module_bytes(result.denoiser) <= size


def test_both_limits_hold_together(pipe, sampling, journal):
    loose, tight = module_bytes(pipe.unet), 4.2
    budget = mz.Budget(weight_bits=tight, size=loose)
    result = mz.quantize(pipe, MEASURED, budget=budget, sampling=sampling, journal=journal)
    assert packed_bits(result, weights_of(pipe.unet)) <= tight


def test_the_plan_predicts_less_noise_than_uniform_of_the_same_bytes(pipe, sampling, journal):
    loose = mz.quantize(pipe, MEASURED, budget=mz.Budget(8.5), sampling=sampling, journal=journal)
    uniform = mz.Plan(
        {
            name: dataclasses.replace(choice, weight="int4/channel")
            for name, choice in loose.plan.choices.items()
        }
    )
    size = module_bytes(mz.apply(pipe, uniform, sampling=sampling).denoiser)
    ours = mz.quantize(
        pipe, MEASURED, budget=mz.Budget(size=size), sampling=sampling, journal=journal
    )

    def noise(plan: mz.Plan) -> float:
        return sum(ours.measurements[name][plan[name]]["noise"] for name in plan)

    assert noise(ours.plan) < noise(uniform)


def test_more_bytes_never_predict_more_noise(pipe, sampling, journal):
    predicted = [
        mz.quantize(
            pipe, MEASURED, budget=mz.Budget(weight_bits=bits), sampling=sampling, journal=journal
        ).plan.context["predicted_sqnr_db"]
        for bits in (3.6, 4.5, 6.0, 8.5)
    ]
    assert predicted == sorted(predicted)


def test_the_original_pipeline_is_left_as_it_was(pipe, sampling, journal):
    before = {name: tensor.clone() for name, tensor in pipe.unet.state_dict().items()}
    mz.quantize(pipe, MEASURED, sampling=sampling, journal=journal)
    after = pipe.unet.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_activations_of_16_bits_are_left_alone(pipe, sampling):
    options = quick(formats=("int4/channel", "int8/channel"))
    budget = mz.Budget(weight_bits=6, act_bits=16)
    result = mz.quantize(pipe, options, budget, sampling=sampling)
    assert {choice.activation for choice in result.plan.choices.values()} == {"float"}


def test_static_activations_are_calibrated(pipe, sampling):
    options = quick(formats=("int8/channel",), activation="uint8/tensor")
    budget = mz.Budget(weight_bits=16)
    result = mz.quantize(pipe, options, budget, sampling=sampling)
    layer = next(iter(packed_layers(result.denoiser).values()))
    assert int(layer.get_buffer("input_scale").item()) != 0


def test_first_tokens_are_constants_and_shortcuts_are_split(pipe, sampling, journal):
    plan = mz.quantize(pipe, MEASURED, sampling=sampling, journal=journal).plan
    readers = set(text_readers(mz.inventory(pipe.unet)))
    assert {
        n for n, choice in plan.choices.items() if mz.ConstantTokens(1) in choice.structures
    } == readers
    split = set(with_structure(plan, mz.SplitInput))
    assert split
    assert all(name.endswith("conv_shortcut") for name in split)
    special = {name for name, why in plan.reasons.items() if "constant" in why or "joined" in why}
    assert special == readers | split


def test_structure_can_be_left_out(pipe, sampling):
    left_out = {"bos": False, "shortcuts": "none", "smoothing": False}
    options = quick(formats=("int8/channel",), **left_out)
    budget = mz.Budget(weight_bits=16)
    plan = mz.quantize(pipe, options, budget, sampling=sampling).plan
    assert {choice.structures for choice in plan.choices.values()} == {()}


def test_a_constant_first_token_that_stands_out_is_no_noise(pipe, sampling):
    with torch.no_grad():  # as in CLIP
        weights = dict(pipe.text_encoder.named_parameters())
        next(w for name, w in weights.items() if "position" in name)[0, 0] = 1000.0
    readers = text_readers(mz.inventory(pipe.unet))
    noise = []
    for bos in (True, False):
        measurements = mz.quantize(
            pipe,
            quick(formats=("int8/channel",), activation="uint8/tensor", bos=bos),
            mz.Budget(weight_bits=16),
            sampling=sampling,
        ).measurements
        noise.append(sum(one["noise"] for name in readers for one in measurements[name].values()))
    assert noise[0] < 0.8 * noise[1]


def test_text_that_is_padded_on_the_left_proves_no_constant(pipe, sampling):
    """Short prompts begin with the same filler; one that fills the length does not."""
    pipe.tokenizer.padding_side = "left"
    options = quick(formats=("int8/channel",))
    budget = mz.Budget(weight_bits=16)
    plan = mz.quantize(pipe, options, budget, sampling=sampling).plan
    assert not with_structure(plan, mz.ConstantTokens)
    assert "pads on the left" in " ".join(plan.context["notes"])


def test_a_single_prompt_is_noted_to_prove_no_constant(pipe):
    options = quick(formats=("int8/channel",))
    budget = mz.Budget(weight_bits=16)
    plan = mz.quantize(pipe, options, budget, sampling=mz.Sampling(prompts=("owl",))).plan
    assert not with_structure(plan, mz.ConstantTokens)
    assert "two different prompts" in " ".join(plan.context["notes"])


def test_the_range_search_changes_what_is_packed(pipe, sampling):
    budget = mz.Budget(weight_bits=16)
    results = [
        mz.quantize(pipe, quick(formats=("int3/channel",), **search), budget, sampling=sampling)
        for search in ({}, {"search": MINMAX})
    ]
    first, second = (packed_layers(r.denoiser)["conv_in"].weight_scale for r in results)
    assert not torch.equal(first, second)


def test_a_budget_out_of_reach_is_refused_before_measuring(pipe, sampling, tmp_path):
    path = tmp_path / "journal.jsonl"
    with pytest.raises(InfeasibleBudgetError, match=r"2\.\d+ bits per weight or more"):
        mz.quantize(
            pipe, MEASURED, budget=mz.Budget(weight_bits=1), sampling=sampling, journal=path
        )
    with pytest.raises(InfeasibleBudgetError, match="the smallest plan takes"):
        mz.quantize(pipe, MEASURED, budget=mz.Budget(size="1KB"), sampling=sampling, journal=path)
    assert not path.exists()


@pytest.mark.parametrize("budget", [{"weight_bits": 1}, {"size": 1000}], ids=["bits", "bytes"])
def test_what_is_named_as_feasible_is(pipe, sampling, journal, budget):
    with pytest.raises(InfeasibleBudgetError) as refusal:
        mz.quantize(pipe, MEASURED, budget=mz.Budget(**budget), sampling=sampling, journal=journal)
    named = re.search(r"(?:need|takes) (\d+\.?\d*)", str(refusal.value))
    (field,) = budget
    nearest = mz.Budget(**{field: json.loads(named[1])})
    mz.quantize(pipe, MEASURED, budget=nearest, sampling=sampling, journal=journal)


def test_a_budget_that_structure_alone_exceeds_names_the_switches(pipe, sampling):
    plain = {"bos": False, "shortcuts": "none"}

    def refusal(budget: mz.Budget, **structure: object) -> str:
        options = quick(formats=("int2/channel",), **structure)
        with pytest.raises(InfeasibleBudgetError) as refused:
            mz.quantize(pipe, options, budget, sampling=sampling)
        return str(refused.value)

    tiny = mz.Budget(size=1000)
    assert "it can be met" not in refusal(tiny)
    least = mz.Budget(size=int(re.search(r"takes (\d+)", refusal(tiny, **plain))[1]))
    assert refusal(least).endswith("; with bos=false and shortcuts=none it can be met")
    assert refusal(least, bos=False).endswith("; with shortcuts=none it can be met")
    options = quick(formats=("int2/channel",), **plain)
    mz.quantize(pipe, options, least, sampling=sampling)


def test_a_killed_run_goes_on_where_it_stopped(pipe, sampling, journal, tmp_path, monkeypatch):
    cut = shutil.copy(journal, tmp_path / "cut.jsonl")
    lines = Path(cut).read_bytes().splitlines(keepends=True)
    lines = [line for line in lines if b'{"unit": "plan ' not in line]
    Path(cut).write_bytes(b"".join(lines[:-3]) + lines[-3][:10])

    asked = watched(monkeypatch)
    mz.quantize(pipe, MEASURED, sampling=sampling, journal=cut)
    assert [task.change.layer is None for task in asked] == [True, True, False, False, False][::-1]
    resumed = {json.loads(line)["unit"] for line in Path(cut).read_text().splitlines()[1:]}
    assert resumed > {json.loads(line)["unit"] for line in lines[1:]}


def test_a_journal_of_other_prompts_is_refused(pipe, journal):
    with pytest.raises(JournalError, match="sampling"):
        mz.quantize(pipe, MEASURED, sampling=mz.Sampling(prompts=("tree",)), journal=journal)


def test_nan_weights_name_the_layer(pipe, sampling):
    with torch.no_grad():
        pipe.unet.conv_out.weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(CalibrationError, match="conv_out"):
        mz.quantize(pipe, MEASURED, sampling=sampling)


def test_unknown_recipes_and_foreign_options_are_refused(pipe):
    with pytest.raises(UsageError, match="there are: auto"):
        mz.quantize(pipe, "best")
    with pytest.raises(UsageError, match="recipe: is a object; give one of: Auto or 'auto', MixDQ"):
        mz.quantize(pipe, object())
    with pytest.raises(UsageError, match="formats"):
        quick(formats=())
    with pytest.raises(UsageError, match="formats: unknown weight format 'lut0/channel'"):
        mz.Auto(formats=("lut0/channel",))
    with pytest.raises(UsageError, match="activation: unknown activation format 'int8'"):
        mz.Auto(activation="int8")
    with pytest.raises(UsageError, match="shortcuts: is 'all'; it is one of: none, shortcuts"):
        mz.Auto(shortcuts="all")
    with pytest.raises(UsageError, match="unknown metric 'best'"):
        mz.Auto(metric="best")
    with pytest.raises(UsageError, match="unknown metric 3"):
        mz.Auto(metric=3)
    with pytest.raises(UsageError, match="bos: is 'no'"):
        mz.Auto(bos="no")


def test_a_metric_may_have_options_of_its_own(pipe, sampling, monkeypatch):
    few, formats = dataclasses.replace(sampling, steps=1), ("int4/channel", "int8/channel")
    metric = ImageError(count=1)
    asked = watched(monkeypatch)
    result = mz.quantize(pipe, quick(formats=formats, metric=metric), mz.Budget(6), sampling=few)
    assert {task.metric for task in asked} == {metric}
    losses = [
        found[result.plan[name]]["image-error"] for name, found in result.measurements.items()
    ]
    assert result.plan.context["predicted_image-error_loss"] == pytest.approx(sum(losses))


def test_a_quantized_pipeline_is_refused(pipe, sampling, journal):
    result = mz.quantize(pipe, MEASURED, sampling=sampling, journal=journal)
    with pytest.raises(UsageError, match="quantized already"):
        mz.quantize(result.pipeline, sampling=sampling)


def test_a_layer_may_stay_floating_and_counts_in_its_own_dtype(pipe, sampling):
    options = quick(formats=("int2/channel", "float"))
    pipe.unet.conv_out.to(torch.float16)
    layers = mz.inventory(pipe.unet)
    weight = pipe.unet.conv_out.weight
    layer = next(layer for layer in layers if layer.name == "conv_out")
    assert choice_bytes(layer, mz.Choice(), weight) == 2 * layer.parameters
    pipe.unet.conv_out.to(torch.float32)
    budget = mz.Budget(size=module_bytes(pipe.unet) // 2, act_bits=8)
    result = mz.quantize(pipe, options, budget, sampling=sampling)
    assert {choice.weight for choice in result.plan.choices.values()} == set(options.formats)
    assert module_bytes(result.denoiser) <= budget.bytes
