"""The graph as a value: queries, files, and what is refused."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mezzotint.errors import ModelError
from mezzotint.models import Graph, Node, NodeInput, NodeKind

SIZES = st.integers(0, 2**40)
SHAPES = st.lists(SIZES, max_size=4).map(tuple)
NAMES = st.text(max_size=20)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Any graph, likely or not."""
    nodes = []
    for index in range(draw(st.integers(0, 6))):
        sources = st.none() | st.integers(0, index - 1) if index else st.none()
        nodes.append(
            Node(
                kind=draw(st.sampled_from(get_args(NodeKind))),
                name=draw(NAMES),
                operation=draw(NAMES),
                inputs=tuple(draw(st.lists(st.builds(NodeInput, SHAPES, sources), max_size=3))),
                output=draw(SHAPES),
                macs=draw(SIZES),
                sections=draw(SHAPES),
                functional=draw(st.booleans()),
                tensor=draw(st.none() | SIZES),
            )
        )
    ends = st.none() | st.integers(0, len(nodes) - 1) if nodes else st.none()
    return Graph(
        nodes=tuple(nodes),
        output=draw(ends),
        idle=tuple(draw(st.lists(NAMES, max_size=3))),
        tied=draw(st.dictionaries(NAMES, NAMES, max_size=3)),
    )


def residual() -> Graph:
    """x + a(x), with `a` reading x twice over."""
    x = NodeInput((2, 8), 0)
    return Graph(
        nodes=(
            Node("input", "x", output=(2, 8)),
            Node("layer", "a", "linear", (x,), (2, 8), macs=128),
            Node("add", "", "add", (NodeInput((2, 8), 1), x, x), (2, 8)),
        ),
        output=2,
        idle=("b",),
    )


class TestSiblings:
    """Layers that read the very same tensors are known together."""

    def graph(self, *runs: tuple[str, str, int | None]) -> Graph:
        nodes = (Node("layer", name, operation, tensor=tensor) for name, operation, tensor in runs)
        return Graph(tuple(nodes))

    def test_they_are_in_order_with_the_layer_itself(self):
        found = self.graph(("q", "linear", 0), ("k", "linear", 0), ("out", "linear", 1)).siblings
        assert found == {"q": ("q", "k"), "k": ("q", "k"), "out": ("out",)}

    def test_another_operation_reads_other_channels(self):
        found = self.graph(("a", "linear", 0), ("b", "conv2d", 0)).siblings
        assert found == {"a": ("a",), "b": ("b",)}

    def test_of_layers_that_run_often_all_runs_count(self):
        runs = [("a", "linear", 0), ("b", "linear", 0), ("a", "linear", 1), ("c", "linear", 1)]
        assert set(self.graph(*runs).siblings.values()) == {("a",), ("b",), ("c",)}
        assert self.graph(*runs, ("b", "linear", 1)).siblings["a"] == ("a", "b")

    def test_where_no_tensor_is_told_there_are_none(self):
        found = self.graph(("a", "linear", None), ("b", "linear", None)).siblings
        assert found == {"a": ("a",), "b": ("b",)}

    def test_older_files_tell_no_tensors(self):
        value = residual().to_dict()
        for node in value["nodes"]:
            del node["tensor"]
        assert Graph.from_dict(value) == residual()


def test_edges_go_from_a_source_to_its_reader_once():
    assert residual().edges == ((0, 1), (1, 2), (0, 2))


def test_constants_are_no_source():
    node = Node("add", "", inputs=(NodeInput((3,), None), NodeInput((3,), 4)))
    assert node.sources == (4,)


def test_runs_are_the_layers_that_compute():
    idle = Node("layer", "b", "linear", functional=True)
    graph = Graph((*residual().nodes, idle))
    assert [node.name for node in graph.runs] == ["a"]


@given(graphs())
def test_a_graph_survives_json(graph: Graph):
    assert Graph.from_dict(json.loads(json.dumps(graph.to_dict()))) == graph


def test_a_graph_survives_a_file(tmp_path: Path):
    residual().save(tmp_path / "graph.json")
    assert Graph.load(tmp_path / "graph.json") == residual()


@pytest.mark.parametrize("source", [1, 2, -1])
def test_a_node_reads_earlier_nodes_only(source: int):
    nodes = (Node("input", "x"), Node("layer", "a", inputs=(NodeInput((2,), source),)))
    with pytest.raises(ModelError, match=rf"node 1 \(layer a\) reads node {source}"):
        Graph(nodes)


@pytest.mark.parametrize("output", [1, -1])
def test_the_output_is_a_node(output: int):
    with pytest.raises(ModelError, match="output: is node"):
        Graph((Node("input", "x"),), output=output)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("version",), 2, "version"),
        (("nodes", 0, "kind"), "riddle", "kind"),
        (("nodes", 1, "macs"), -1, "macs"),
        (("nodes", 1, "inputs", 0, "source"), "x", "source"),
        (("nodes", 1, "inputs", 0, "source"), 1, r"node 1 \(layer a\) reads node 1"),
        (("nodes", 2, "colour"), "red", "colour"),
        (("output",), 3, "output"),
        (("idle",), None, "idle"),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_a_damaged_file_is_refused_by_name(
    tmp_path: Path, path: tuple[Any, ...], value: Any, message: str
):
    file = tmp_path / "graph.json"
    residual().save(file)
    damaged = json.loads(file.read_text("utf-8"))
    place = damaged
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    file.write_text(json.dumps(damaged), "utf-8")
    with pytest.raises(ModelError, match=rf"graph\.json.*{message}"):
        Graph.load(file)
