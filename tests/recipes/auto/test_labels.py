"""Labels of whole configurations weigh the layers of recipe auto."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import mezzotint as mz
from mezzotint.allocation import Limit
from mezzotint.errors import UsageError
from mezzotint.recipes.auto.losses import Losses
from mezzotint.recipes.auto.program import IntegerProgram
from mezzotint.recipes.label_options import SampleOptions
from mezzotint.recipes.labelling import sample_labels
from tests.recipes.conftest import PROBED
from tests.recipes.labelled_pipeline import FEW, save_smallest

SAMPLING = mz.Sampling(prompts=("owl", "red apple"))
QUICK = replace(PROBED, formats=("int3/channel", "lut4/channel"), smoothing=False)


def test_an_emphasis_moves_bytes_to_the_layers_that_count():
    choices = {bits: mz.Choice(f"int{bits}/channel") for bits in (3, 4)}
    costs = {
        name: {choices[3]: {"bytes": 3}, choices[4]: {"bytes": 4}} for name in ("one", "other")
    }
    weights = {
        "one": {"int3/channel": 1.2, "int4/channel": 0.0},
        "other": {"int3/channel": 1.0, "int4/channel": 0.0},
    }
    losses = Losses(weights, {})
    program = IntegerProgram(costs, (Limit("bytes", 7),))
    assert program.solve(losses).chosen["one"] == choices[4]
    assert program.roughly_solved(losses)["one"] == choices[4]
    weighed = replace(program, emphasis={"other": 2.0})
    assert weighed.solve(losses).chosen["other"] == choices[4]
    assert weighed.roughly_solved(losses)["other"] == choices[4]


def test_labels_of_the_model_reach_the_plan(tmp_path: Path):
    save_smallest(tmp_path / "tiny")
    pipe = mz.load(tmp_path / "tiny")
    formats = ("kmeans3/tensor", "uint4/channel")
    labels = SampleOptions(count=24, formats=formats, metric="noise", images=2)
    sample_labels(pipe, tmp_path / "labels", labels)
    options = replace(QUICK, labels=str(tmp_path / "labels"), predictor="ridge-choices")
    result = mz.quantize(pipe, options, mz.Budget(weight_bits=4.3, act_bits=16), sampling=SAMPLING)
    told = result.plan.context
    assert (told["predictor"], told["labels"]) == ("ridge-choices", 24)
    assert "partial" in told["predictors"]["ridge-choices"]


def test_labels_without_first_tokens_are_not_for_plans_that_quantize_them(tmp_path: Path):
    save_smallest(tmp_path / "tiny")
    pipe, folder = mz.load(tmp_path / "tiny"), tmp_path / "labels"
    sample_labels(pipe, folder, replace(FEW, bos=True))
    options = replace(QUICK, labels=str(folder), bos=False)
    with pytest.raises(UsageError, match=f"labels: those in {folder} .* leave bos on"):
        mz.quantize(pipe, options, mz.Budget(weight_bits=4.3, act_bits=16), sampling=SAMPLING)


def test_labels_go_with_noise_alone():
    with pytest.raises(UsageError, match="metric"):
        mz.Auto(labels="labels", metric="ssim")
