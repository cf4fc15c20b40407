"""`mezzotint explain`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import mezzotint as mz
from mezzotint.recipes.label_options import SampleOptions
from mezzotint.recipes.labelling import sample_labels


@pytest.fixture(scope="module")
def labels(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels of the tiny model; read only."""
    folder = tmp_path_factory.mktemp("explain") / "labels"
    formats = ("kmeans3/tensor", "kmeans4/tensor", "uint3/channel", "uint4/channel")
    options = SampleOptions(count=24, formats=formats, metric="noise", images=2)
    sample_labels(mz.load(model), folder, options)
    return folder


def test_a_page_and_its_tables_are_written(run, labels, tmp_path):
    fitted, output = tmp_path / "fitted", tmp_path / "insights"
    options = ("--epochs", 2, "--fitted", fitted)
    told = json.loads(run("explain", labels, "-o", output, *options, "--json").stdout)
    assert Path(told["page"]) == output / "insights.html"
    assert {each["verdict"] for each in told["findings"]} <= {
        "holds",
        "does not hold",
        "cannot be told",
    }
    assert len(list(output.glob("*.csv"))) == 5
    again = run("explain", labels, "-o", output, *options, "--force").stdout
    assert "queries of self-attention" in again


def test_labels_that_are_none_are_named(fails, tmp_path):
    told = fails("explain", tmp_path / "none", "-o", tmp_path / "insights")
    assert "holds no labels" in told
    assert not (tmp_path / "insights").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--predictor", "ridge-choices"), "'ridge-choices' scores no layers"),
        (("--predictor", "best"), "'best' scores no layers"),
        (("--weight-bits", 0), "weight_bits is 0"),
        (("--weight-bits", "nan"), "weight_bits is nan"),
        (("--weight-bits", 1), "cannot be met"),
        (("--beside", "no-labels"), "no-labels: holds no labels"),
        (("--fitted", __file__), "is a file; name a folder"),
    ],
    ids=["no scores", "best", "no bits", "NaN", "too few bits", "beside", "fitted"],
)
def test_bad_input_is_named_before_anything_is_trained(
    fails, labels, tmp_path, monkeypatch, options, message
):
    monkeypatch.setattr("mezzotint.predictors.Ensemble.fit_fold", None)
    assert message in fails("explain", labels, "-o", tmp_path / "insights", *options)
    assert not (tmp_path / "insights").exists()


def test_a_folder_of_other_things_is_refused_before_anything_is_trained(
    fails, labels, tmp_path, monkeypatch
):
    monkeypatch.setattr("mezzotint.predictors.Ensemble.fit_fold", None)
    (tmp_path / "notes.txt").write_text("mine")
    told = fails("explain", labels, "-o", tmp_path, "--force")
    assert "holds something else than insights" in told
