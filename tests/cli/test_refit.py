"""`mezzotint quantize --plan BASE --refit`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import mezzotint as mz
from mezzotint.checkpoint import read_plan

QUICK = ("--formats", "int3/channel,int5/channel,int8/channel", "--no-exchanges")
QUICK += ("--probes", 8, "--regret", 1e9, "--bias-correction", "never")


@pytest.fixture
def base(run, model, tmp_path) -> Path:
    folder = tmp_path / "base"
    result = run("quantize", model, "-o", folder, "--size", "1MB", "--act-bits", 16, *QUICK)
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


def test_the_budget_is_that_of_the_base_unless_one_is_given(run, base, fine_tune, tmp_path):
    for name, given, expected in (
        ("same", (), {"size": "1MB", "act_bits": 16}),
        ("bits", ("--weight-bits", 6), {"weight_bits": 6.0, "size": None, "act_bits": 16}),
    ):
        output = tmp_path / name
        options = ("--plan", base, "--refit", *given, *QUICK)
        result = run("quantize", fine_tune, "-o", output, *options)
        assert result.exit_code == 0, result.stderr
        context = read_plan(output).context
        assert expected.items() <= context["budget"].items()
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
