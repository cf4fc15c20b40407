import json
from pathlib import Path

import pytest

import mezzotint as mz


def test_models_lists_the_embedded_ones(run):
    listed = json.loads(run("models", "--json").stdout)
    assert [row["name"] for row in listed] == list(mz.list_embedded())
    assert all((Path(row["folder"]) / "model_index.json").is_file() for row in listed)


def test_models_prints_a_table(run):
    result = run("models")
    assert result.exit_code == 0
    assert all(name in result.stdout for name in mz.list_embedded())


def test_inspect_lists_the_layers_of_the_denoiser(run, model):
    found = json.loads(run("inspect", model, "--json").stdout)
    layers = {layer["name"]: layer for layer in found["layers"]}
    assert found["denoiser"] == "UNet2DConditionModel"
    assert layers["conv_in"]["weight_shape"] == [8, 4, 3, 3]
    assert layers["conv_in"]["role"] == "input"
    assert layers["conv_in"]["quantizable"]
    assert found["packed"] == []
    assert "call_times" not in found


def test_inspect_shows_how_packed_layers_are_computed(run, quantized, uniform):
    found = json.loads(run("inspect", quantized, "--json").stdout)
    assert len(found["packed"]) == len(uniform)
    assert {"layer", "choice", "kernel", "arithmetic", "reason"} <= found["packed"][0].keys()


def test_inspect_says_how_fast_a_packed_denoiser_is_here(run, quantized):
    found = json.loads(run("inspect", quantized, "--json").stdout)["call_times"]
    assert [each["engine"] for each in found["packed"]][-1:] == ["torch"]
    *_, last = run("inspect", quantized).stdout.splitlines()
    assert last == found["verdict"]


@pytest.mark.parametrize("which", ["model", "quantized"])
def test_inspect_prints_tables(run, which, request):
    shown = run("inspect", request.getfixturevalue(which)).stdout
    assert "time_embedding.linear_1" in shown


def test_version_names_what_a_bug_report_needs(run):
    shown = run("version").stdout
    assert f"mezzotint {mz.__version__}" in shown
    assert "torch" in shown
    assert "diffusers" in shown
