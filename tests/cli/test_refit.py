"""`mezzotint quantize --plan BASE --refit`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import mezzotint as mz
from mezzotint.checkpoint import read_plan
from mezzotint.cli._refit import refitting

#: Pins and exclusions of the base.
DECIDED = ("--pin", "conv_in=int8/channel", "--exclude", "conv_out")

QUICK = ("--formats", "int3/channel,int5/channel,int8/channel", "--no-exchanges")
QUICK += ("--probes", 8, "--regret", 1e9, "--bias-correction", "never")


@pytest.fixture
def base(run, model, tmp_path) -> Path:
    folder = tmp_path / "base"
    result = run(
        "quantize", model, "-o", folder, "--size", "1MB", "--act-bits", 16, *DECIDED, *QUICK
    )
    assert result.exit_code == 0, result.stderr
    return folder


@pytest.fixture
def fine_tune(model, tmp_path) -> Path:
    """The same pipeline with weights that have moved a little."""
    pipe, generator = mz.load(model), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in pipe.unet.parameters():
            moved = torch.randn(weight.shape, generator=generator)
            weight.add_(0.02 * weight.std(unbiased=False) * moved)
    folder = tmp_path / "fine-tune"
    pipe.save_pretrained(folder)
    return folder


def test_budget_pins_and_exclusions_are_those_of_the_base_unless_some_are_given(
    run, base, fine_tune, tmp_path
):
    other = ("--weight-bits", 6, "--exclude", "time_embedding")
    for name, given, expected, excluded in (
        ("same", (), {"size": "1MB", "act_bits": 16}, ["conv_out"]),
        ("bits", other, {"weight_bits": 6.0, "size": None, "act_bits": 16}, ["time_embedding"]),
    ):
        output = tmp_path / name
        options = ("--plan", base, "--refit", *given, *QUICK)
        result = run("quantize", fine_tune, "-o", output, *options)
        assert result.exit_code == 0, result.stderr
        context = read_plan(output).context
        assert expected.items() <= context["budget"].items()
        assert context["pin"] == ["conv_in=int8/channel"]
        assert context["exclude"] == excluded
        assert context["sensitivity"] == "refit"


def test_a_base_is_named_with_it(fails, model, tmp_path):
    message = fails("quantize", model, "-o", tmp_path / "out", "--refit")
    assert "--refit: goes with --plan" in message


def test_other_recipes_know_nothing_of_it(fails, model, base, tmp_path):
    options = ("--plan", base, "--refit", "--recipe", "mixdq")
    message = fails("quantize", model, "-o", tmp_path / "out", *options)
    assert "--refit: is for recipe auto" in message


def test_a_base_without_a_budget_asks_for_one(fails, model, tmp_path):
    plan = mz.uniform_plan(mz.load(model).unet, weight_bits=8)
    plan.save(tmp_path / "plan.json")
    options = ("--plan", tmp_path / "plan.json", "--refit")
    message = fails("quantize", model, "-o", tmp_path / "out", *options)
    assert "was made for no bits, size or latency; give one" in message


def test_components_are_those_of_the_base_unless_some_are_named(tmp_path):
    choices = {"transformer_2.linear": mz.Choice("int4/channel")}
    context = {"budget": {"weight_bits": 4}}
    plan = mz.Plan(choices, context=context, components=("transformer_2",))
    plan.save(tmp_path / "plan.json")
    for place in (tmp_path, tmp_path / "plan.json"):
        assert refitting(mz.Auto(), place, {}, None).components == ("transformer_2",)
        assert refitting(mz.Auto(), place, {}, ["vae"]).components == ["vae"]
