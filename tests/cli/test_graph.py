"""`mezzotint graph`."""

import pytest

from mezzotint.models import WeightGraph


def test_a_graph_is_written_as_the_suffix_says(run, model, tmp_path):
    for suffix, beginning in (("svg", b"<?xml"), ("graphml", b"<?xml"), ("json", b"{")):
        path = tmp_path / f"graph.{suffix}"
        shown = run("graph", model, "-o", path)
        assert path.read_bytes().startswith(beginning)
        assert f"{path}: 17 weights in 8 blocks" in shown.stdout


def test_a_quantized_model_has_the_graph_of_its_original(run, model, quantized, tmp_path):
    for name, source in (("model", model), ("quantized", quantized)):
        run("graph", source, "-o", tmp_path / f"{name}.json")
    found = [WeightGraph.load(tmp_path / f"{name}.json") for name in ("model", "quantized")]
    assert found[0] == found[1]


@pytest.mark.parametrize(("shortcuts", "halves"), [("shortcuts", 4), ("none", 0)])
def test_shortcuts_are_two_weights_or_one(run, model, tmp_path, shortcuts, halves):
    run("graph", model, "-o", tmp_path / "graph.json", "--shortcuts", shortcuts)
    graph = WeightGraph.load(tmp_path / "graph.json")
    assert sum("/" in node.key for node in graph.weights) == halves


def test_a_file_that_is_there_is_replaced_on_request_alone(run, fails, model, tmp_path):
    path = tmp_path / "graph.json"
    path.write_text("mine")
    assert "exists already; choose another place, or add --force" in fails(
        "graph", model, "-o", path
    )
    assert path.read_text() == "mine"
    run("graph", model, "-o", path, "--force")
    assert WeightGraph.load(path).weights


def test_another_suffix_is_an_error_before_any_work(fails, tmp_path):
    message = fails("graph", "no/such-model", "-o", tmp_path / "graph.png")
    assert "its suffix says what to write" in message


def test_a_file_within_the_model_is_refused(fails, model):
    assert "lies within it" in fails("graph", model, "-o", model / "graph.svg")
