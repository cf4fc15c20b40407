"""`mezzotint sample`."""

import json

import pytest

from mezzotint.labels import Labels
from tests.labels.user_metrics import ABSOLUTE

FEW = ("-n", 3, "--metric", "noise", "--images", 2, "--formats", "uint3/channel, uint4/channel")


@pytest.fixture(scope="module")
def session_run():
    from typer.testing import CliRunner

    from mezzotint.cli import app

    def invoke(*arguments):
        return CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)

    return invoke


@pytest.fixture(scope="module")
def sampled(session_run, model, tmp_path_factory):
    """A folder of three labels, and what was printed."""
    folder = tmp_path_factory.mktemp("sample") / "labels"
    return folder, session_run("sample", model, "--journal", folder, *FEW)


def test_labels_are_kept_and_summed_up(sampled):
    folder, found = sampled
    assert found.exit_code == 0
    labels = Labels.read(folder)
    assert (len(labels), labels.formats) == (3, ("uint3/channel", "uint4/channel"))
    assert "Labels by noise" in found.stdout
    assert f"labels are kept in {folder}" in found.stdout
    assert found.stderr.startswith("Labelling: 4 changes of the whole model on 1 calls at ")


def test_more_are_added_and_given_as_json(run, sampled, model):
    folder, _ = sampled
    before = (folder / "labels.jsonl").read_text()
    options = [each if each != 3 else 5 for each in FEW]
    found = json.loads(run("sample", model, "--journal", folder, *options, "--json").stdout)
    assert found["labels"] == len(found["values"]) == len(found["stored_bits"]) == 5
    assert (folder / "labels.jsonl").read_text().startswith(before)


def test_options_reach_the_labels(run, sampled, model, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("tree\n")
    options = ["--prompts", prompts, "--seed", 4, "--steps", 2, "--rounding", "feedback"]
    run("sample", model, "--journal", tmp_path / "labels", *FEW, *options, "--stratify")
    header = json.loads((tmp_path / "labels" / "labels.json").read_text())
    assert header["sampling"]["prompts"] == ["tree", "tree"]
    assert (header["sampling"]["seed"], header["sampling"]["steps"]) == (4, 2)
    assert header["encoding"]["rounding"] == "feedback"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--seed", 1), "holds labels of other prompts, seeds or steps"),
        (("--rounding", "feedback"), "holds labels of another rounding"),
        (("--rounding", "none"), "unknown rounding 'none'"),
        (("--metric", "fid"), "there is no 'fid'"),
        (("--metric", "no_such:thing"), "no_such:thing: cannot be imported"),
        (("--metric", ABSOLUTE), "holds labels of another metric"),
        (("--formats", "int9/channel"), "int9/channel"),
        (("--workers", 2), "workers: executor 'in-process' takes none"),
    ],
    ids=[
        "seed",
        "rounding",
        "no rounding",
        "no metric",
        "no module",
        "metric",
        "format",
        "workers",
    ],
)
def test_bad_input_is_named_and_labels_stay(fails, sampled, model, options, message):
    folder, _ = sampled
    before = (folder / "labels.jsonl").read_bytes()
    assert message in fails("sample", model, "--journal", folder, *FEW, *options)
    assert (folder / "labels.jsonl").read_bytes() == before
