"""Calls as people write them at first, and the sentences that name the right ones."""

from __future__ import annotations

import re
from typing import get_args

import pytest
import torch

import mezzotint as mz
from mezzotint.errors import UsageError
from mezzotint.evaluation import bench, evaluate
from mezzotint.recipes import recipes
from mezzotint.runtime import module_bytes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("emoji-turbo",),
            r"pipe: is 'emoji-turbo'; give a pipeline: mezzotint.load\('emoji-turbo'\)",
        ),
        ((torch.nn.Linear(2, 2),), "pipe: is a bare Linear, .* mezzotint.quantize_module"),
        ((mz.Sampling,), "pipe: is the class Sampling"),
        ((None,), "pipe: is a NoneType; give a pipeline first"),
        (("auto", "PIPE"), "pipe: is 'auto'"),
        (("PIPE", 4), r"recipe: is 4; give quantize\(pipe, budget=Budget\(weight_bits=4\)\)"),
        (("PIPE", mz.Budget()), r"recipe: is a Budget; give quantize\(pipe, budget=...\)"),
        (("PIPE", mz.Sampling("owl")), r"recipe: is a Sampling; give quantize\(pipe, sampling="),
        (("PIPE", mz.Plan({})), r"recipe: is a Plan; give apply\(pipe, plan\)"),
        (("PIPE", mz.MixDQ), r"recipe: is the class MixDQ; give its options: MixDQ\(\)"),
        (("PIPE", "mixqd"), "recipe.*mixqd.*mixdq"),
        (("PIPE", "auto", 4), r"budget: is 4; give Budget\(weight_bits=4\)"),
        (("PIPE", "auto", "6MB"), r"budget: is '6MB'; give Budget\(size='6MB'\)"),
        (("PIPE", mz.Auto(), "auto"), r"budget: is 'auto'; give Budget\(weight_bits=4\)"),
        (("PIPE", "auto", mz.Auto()), r"budget: is a Auto; give Budget\(weight_bits=4\)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_quantize_names_the_right_call(pipe, arguments: tuple[object, ...], message: str):
    given = [pipe if each == "PIPE" else each for each in arguments]
    with pytest.raises(UsageError, match=message):
        mz.quantize(*given)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("emoji-turbo", [4]), r"pipe: is 'emoji-turbo'; give a pipeline"),
        (("PIPE", 4), r"budgets: is 4; give a list: sweep\(pipe, \[4\]\)"),
        (("PIPE", mz.Budget()), r"budgets: is a Budget; give a list"),
        (("PIPE", "6MB"), r"budgets: is '6MB'; give sweep\(pipe, \[Budget\(size='6MB'\)\]\)"),
        (("PIPE", None), r"budgets: is a NoneType; give a list, such as"),
        (("PIPE", [4, "6MB"]), r"budgets: one is '6MB'; give Budget\(size='6MB'\)"),
        (("PIPE", [4, None]), r"budgets: one is None; give Budget\(weight_bits=4\)"),
        (("PIPE", [[4]]), r"budgets: one is a list; give Budget\(weight_bits=4\)"),
        (("PIPE", []), "budgets: none given"),
        (
            ("PIPE", [mz.Budget(pipeline_size="1GB")]),
            "budgets: one has a pipeline_size; give sizes",
        ),
        (("PIPE", 3, 4), r"recipe: is a budget; give all of them in one list"),
        (
            ("PIPE", [4], mz.Sampling("owl")),
            r"recipe: is a Sampling; give sweep\(pipe, budgets, sam",
        ),
        (("PIPE", [4], mz.MixDQ()), "recipe: is a MixDQ; a sweep takes Auto"),
    ],
    ids=str,
)
def test_sweep_names_the_right_call(pipe, arguments: tuple[object, ...], message: str):
    given = [pipe if each == "PIPE" else each for each in arguments]
    with pytest.raises(UsageError, match=message):
        mz.sweep(*given)


@pytest.mark.parametrize(
    "verb", [mz.quantize, mz.sweep, mz.sample_labels], ids=lambda f: f.__name__
)
def test_prompts_are_no_sampling_wherever_one_is_taken(pipe, tmp_path, verb):
    second = {mz.quantize: "auto", mz.sweep: [4], mz.sample_labels: tmp_path}[verb]
    with pytest.raises(UsageError, match=r"sampling: is a list; give Sampling\(prompts=...\)"):
        verb(pipe, second, sampling=["owl"])


@pytest.fixture
def result(pipe) -> mz.Result:
    return mz.apply(pipe, mz.uniform_plan(pipe.unet, weight_bits=8, model="tiny"))


def test_apply_takes_a_plan(pipe, result):
    with pytest.raises(UsageError, match=r"plan: is 'plan.json'; give Plan.load\('plan.json'\)"):
        mz.apply(pipe, "plan.json")
    with pytest.raises(UsageError, match=r"plan: is a Result; give its plan: \.plan"):
        mz.apply(pipe, result)
    with pytest.raises(UsageError, match="pipe: is a Plan"):
        mz.apply(result.plan, pipe)
    with pytest.raises(UsageError, match="plan: is a StableDiffusionPipeline"):
        mz.tune(pipe, pipe)


def test_evaluation_takes_pipelines(pipe, result):
    with pytest.raises(UsageError, match=r"pipe: is a Result; give its pipeline, .* \.pipeline"):
        evaluate(pipe, result, mz.Sampling("owl"))
    with pytest.raises(UsageError, match="reference: is 'emoji-turbo'"):
        evaluate("emoji-turbo", pipe, mz.Sampling("owl"))
    with pytest.raises(UsageError, match="reference: is 'emoji-turbo'"):
        bench("emoji-turbo", pipe)


def test_modules_are_no_pipelines(pipe):
    with pytest.raises(UsageError, match="module: is a StableDiffusionPipeline, a pipeline; give"):
        mz.quantize_denoiser(pipe)
    with pytest.raises(UsageError, match="module: is a StableDiffusionPipeline, a pipeline; give"):
        mz.quantize_module(pipe, [])


def test_a_result_is_one_line(result):
    layers = len(result.plan)
    size = f"{module_bytes(result.denoiser):,}"
    assert repr(result) == f"<Result of tiny: {layers} of {layers} layers quantized, {size} bytes>"
    assert repr(result.plan) == f"<Plan for tiny: {layers} of {layers} layers quantized>"


def test_in_notebooks_a_result_is_a_table(result):
    page = result._repr_html_()
    assert page.startswith("<table><caption>&lt;Result of tiny: ")
    cells = re.findall(r"<td>(.*?)</td>", page)
    assert cells == ["int8/channel", "float", str(len(result.plan))]


def test_what_cells_hold_is_text_in_html():
    plan = mz.Plan({}, model="<script>alert(1)</script>")
    assert "<script>" not in plan._repr_html_()


def test_the_names_for_type_checkers_are_those_of_the_built_in_recipes():
    assert set(get_args(mz.RecipeName)) == {each.name for each in recipes()}
