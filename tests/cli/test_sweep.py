"""`mezzotint sweep`: several budgets, measured once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import mezzotint as mz
from mezzotint.checkpoint import read_plan
from mezzotint.evaluation import stored_bytes
from mezzotint.runtime import module_bytes

FORMATS = "int3/channel,int5/channel,int8/channel"
QUICK = ("--formats", FORMATS, "--no-exchanges", "--probes", 8, "--regret", 1e9)


@pytest.fixture(scope="module")
def curve(model: Path, tmp_path_factory: pytest.TempPathFactory):
    """Folder and output of a sweep over three budgets, one of which is saved."""
    from typer.testing import CliRunner

    from mezzotint.cli import app

    folder = tmp_path_factory.mktemp("sweep") / "curve"
    arguments = ["sweep", model, "-o", folder, "--bits", "4,7", "--sizes", "1GB"]
    arguments += ["--save", "4", "--json", *QUICK, "--exclude", "conv_out"]
    result = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return folder, result


def test_the_curve_is_told_in_figures(curve, model):
    folder, result = curve
    value = json.loads((folder / "sweep.json").read_text())
    assert [point["label"] for point in value["points"]] == ["4bit", "7bit", "1GB"]
    sizes, bits, measured = (
        [point[name] for point in value["points"]]
        for name in ("denoiser_bytes", "weight_bits", "measured_sqnr_db")
    )
    assert sizes == sorted(sizes)
    assert bits[0] <= 4 < bits[1] <= 7 < bits[2]
    assert measured == sorted(measured)
    assert value["floating_bytes"] == module_bytes(mz.load(model).unet)
    printed = json.loads(result.stdout)
    assert [each["measured_sqnr_db"] for each in printed["points"]] == measured


def test_the_picture_shows_every_budget(curve):
    folder, _ = curve
    picture = (folder / "sweep.svg").read_text()
    assert picture.startswith("<svg")
    assert all(label in picture for label in ("4bit", "7bit", "1GB", "measured", "predicted"))


def test_the_checkpoint_that_was_asked_for_is_saved_and_no_other(curve):
    folder, _ = curve
    points = json.loads((folder / "sweep.json").read_text())["points"]
    assert [point["checkpoint"] for point in points] == ["4bit", None, None]
    assert stored_bytes(folder / "4bit" / "unet") == points[0]["denoiser_bytes"]
    assert read_plan(folder / "4bit") == read_plan(folder / "plans" / "4bit.json")
    assert not (folder / "7bit").exists()


def test_every_plan_is_the_one_that_quantize_finds(curve, run, model, tmp_path):
    folder, _ = curve
    alone = tmp_path / "alone"
    options = ("--weight-bits", 7, *QUICK, "--exclude", "conv_out", "--measurements", folder)
    found = run("quantize", model, "-o", alone, *options)
    assert "Probing" not in found.stderr
    assert read_plan(alone).choices == read_plan(folder / "plans" / "7bit.json").choices


def test_an_interrupted_sweep_goes_on_where_it_was(curve, run, model, tmp_path):
    folder, _ = curve
    shutil.copy(folder / "measurements.jsonl", tmp_path / "out.journal.jsonl")
    options = ("--bits", "4,7", "--sizes", "1GB", "--exclude", "conv_out", "--resume", *QUICK)
    result = run("sweep", model, "-o", tmp_path / "out", *options)
    assert result.exit_code == 0, result.stderr
    assert "Probing" not in result.stderr
    assert "Measuring" not in result.stderr
    for name in ("4bit", "7bit", "1GB"):
        plans = [each / "plans" / f"{name}.json" for each in (folder, tmp_path / "out")]
        assert plans[0].read_bytes() == plans[1].read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_each_budget_is_announced_when_it_is_done(curve):
    lines = curve[1].stderr.splitlines()
    told = [line.partition(":")[0] for line in lines if line.startswith("budget ")]
    assert told == ["budget 1 of 3, 4bit", "budget 2 of 3, 7bit", "budget 3 of 3, 1GB"]
    assert sum(line.startswith("Probing") for line in lines) == 1


def test_a_profile_tells_the_latency_of_every_plan(run, model, tmp_path):
    profile, folder = tmp_path / "profile.json", tmp_path / "curve"
    formats = ("--formats", "int3/channel,int8/channel")
    made = run("profile", model, "-o", profile, *formats, "--activations", "float,int8/token")
    assert made.exit_code == 0, made.stderr
    options = ("--bits", "4,8", "--profile", profile, *formats, "--inputs", "float,int8/token")
    options += ("--sensitivity", "probes", "--bias-correction", "never")
    result = run("sweep", model, "-o", folder, *options)
    assert result.exit_code == 0, result.stderr
    value = json.loads((folder / "sweep.json").read_text())
    assert value["floating_latency_ms"] > 0
    assert all(point["latency_ms"] > 0 for point in value["points"])
    assert all(point["measured_sqnr_db"] is None for point in value["points"])
    assert "ms a call" in (folder / "sweep.svg").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--bits", "3,three"], "--bits: '3,three' is no list of numbers"),
        (["--bits", "3,3.0"], "a budget is given twice"),
        (["--bits", ","], "none given"),
        (["--bits", "3", "--save", "4"], "--save: '4' is none of the budgets: 3bit"),
        (["--bits", "0.5,4"], "weight_bits 0.5 cannot be met"),
        (["--sizes", "6 pounds"], "is not understood"),
        (["--sizes", "1B"], "embeddings); allow more"),
        (["--tune-minutes", "1"], "are not trained"),
        (["--metric", "ssim"], "are compared by noise"),
        (["--pin", "nowhere=int8/channel"], "names no layer"),
        (["--component", "nothing"], "components: 'nothing' is nothing of this"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else "",
)
def test_bad_input_is_refused_before_anything_is_measured(fails, model, tmp_path, options, message):
    assert message in fails("sweep", model, "-o", tmp_path / "out", *options)
    assert not [*tmp_path.iterdir()]


def test_a_folder_of_something_else_is_left_alone(fails, model, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    message = fails("sweep", model, "-o", tmp_path / "out", "--force")
    assert "holds something else than a sweep" in message


def test_a_sweep_that_is_there_already_is_told_before_the_model_is_loaded(
    fails, curve, model, monkeypatch
):
    monkeypatch.setattr("mezzotint.loaded_pipeline.load", None)
    assert "exists already" in fails("sweep", model, "-o", curve[0])


def test_a_dry_run_tells_how_long_it_takes_and_writes_nothing(run, model, tmp_path):
    result = run("sweep", model, "-o", tmp_path / "out", "--bits", "4", "--dry-run", *QUICK)
    assert result.exit_code == 0
    assert result.stdout.startswith("In all about ")
    assert "packing" not in result.stdout  # nothing of a sweep is
    assert not [*tmp_path.iterdir()]
