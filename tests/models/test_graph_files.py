"""A graph of weights as GraphML and as a picture."""

from pathlib import Path
from xml.etree import ElementTree

import networkx
import pytest

from mezzotint.errors import UsageError
from mezzotint.models import (
    Block,
    WeightGraph,
    blocks_of,
    joined_inputs,
    save_weight_graph,
    trace_graph,
    weight_graph,
)
from mezzotint.models.graph_layout import Box, panels_of
from tests.models import tiny

SVG = "{http://www.w3.org/2000/svg}"


def made(model: str) -> tuple[WeightGraph, tuple[Block, ...]]:
    denoiser = getattr(tiny, model)()
    traced = trace_graph(denoiser)
    splits = {n: c for n, c in joined_inputs(traced).items() if n.endswith("shortcut")}
    graph = weight_graph(denoiser, traced, splits)
    return graph, blocks_of(graph)


MODELS = {name: made(name) for name in ("tiny_unet", "tiny_pixart", "tiny_dit")}
EVERY = pytest.mark.parametrize(("graph", "blocks"), MODELS.values(), ids=list(MODELS))


@EVERY
def test_json_is_the_graph_itself(graph: WeightGraph, blocks: tuple[Block, ...], tmp_path: Path):
    save_weight_graph(graph, blocks, tmp_path / "graph.json")
    assert WeightGraph.load(tmp_path / "graph.json") == graph


@EVERY
def test_graphml_has_all_nodes_and_edges(
    graph: WeightGraph, blocks: tuple[Block, ...], tmp_path: Path
):
    save_weight_graph(graph, blocks, tmp_path / "graph.graphml")
    found = networkx.read_graphml(tmp_path / "graph.graphml", node_type=int)
    assert {*found.edges} == {*graph.edges}
    assert {i: found.nodes[i]["key"] for i in found if found.nodes[i]["type"] == "weight"} == {
        node.index: node.key for node in graph.weights
    }
    assert {i: found.nodes[i]["kind"] for i in found if found.nodes[i]["type"] == "combine"} == {
        node.index: node.kind for node in graph.combines
    }


def test_graphml_tells_what_is_known_of_a_weight_and_its_block(tmp_path: Path):
    graph, blocks = MODELS["tiny_pixart"]
    save_weight_graph(graph, blocks, tmp_path / "graph.graphml")
    found = networkx.read_graphml(tmp_path / "graph.graphml", node_type=int)
    (node,) = (
        found.nodes[i] for i in found if found.nodes[i].get("key", "").endswith("1.ff.net.2")
    )
    assert node == {
        "type": "weight",
        "key": "transformer_blocks.1.ff.net.2",
        "layer": "transformer_blocks.1.ff.net.2",
        "role": "feed_forward_out",
        "operation": "linear",
        "weights": 1024,
        "inputs": 64,
        "outputs": 16,
        "quantizable": True,
        "stage": 2,
        "block": 0,
        "transformer": 0,
        "block_kind": "feed_forward",
        "block_name": "transformer_blocks.1.ff",
        "root_of": "transformer_blocks.1.ff",
        "hops": 1,
    }


class TestPicture:
    @EVERY
    def test_draws_each_node_once_and_each_edge(
        self, graph: WeightGraph, blocks: tuple[Block, ...], tmp_path: Path
    ):
        save_weight_graph(graph, blocks, tmp_path / "graph.svg")
        root = ElementTree.parse(tmp_path / "graph.svg").getroot()
        classes = [box.get("class", "").split()[0] for box in root.iter(f"{SVG}rect")]
        assert classes.count("weight") == len(graph.weights)
        assert classes.count("combine") == len(graph.combines)
        assert classes.count("block") == sum(len(block.weights) > 1 for block in blocks)
        assert len([*root.iter(f"{SVG}path")]) == len(graph.edges)

    @EVERY
    def test_marks_the_roots(self, graph: WeightGraph, blocks: tuple[Block, ...], tmp_path: Path):
        save_weight_graph(graph, blocks, tmp_path / "graph.svg")
        root = ElementTree.parse(tmp_path / "graph.svg").getroot()
        marked = [box for box in root.iter(f"{SVG}rect") if "root" in box.get("class", "").split()]
        assert len(marked) == len({block.root for block in blocks})

    def test_says_of_a_weight_what_is_known(self, tmp_path: Path):
        save_weight_graph(*MODELS["tiny_pixart"], tmp_path / "graph.svg")
        shown = (tmp_path / "graph.svg").read_text("utf-8")
        assert "transformer_blocks.1.ff.net.2: feed_forward_out, linear, 1,024 weights" in shown
        assert ">add in transformer_blocks.0<" in shown  # a source in another panel


class TestLayout:
    @EVERY
    def test_each_node_stands_in_one_panel(self, graph: WeightGraph, blocks: tuple[Block, ...]):
        found = [index for panel in panels_of(graph, blocks) for index in panel.nodes]
        assert sorted(found) == [*range(len(graph.nodes))]

    @EVERY
    def test_nothing_stands_over_another(self, graph: WeightGraph, blocks: tuple[Block, ...]):
        panels = panels_of(graph, blocks)
        assert apart([panel.box for panel in panels])
        for panel in panels:
            assert apart([*panel.nodes.values(), *{*panel.sources.values()}])
            assert apart([box for _, box in panel.blocks])
            assert all(within(box, panel.box) for box in panel.nodes.values())
            assert all(within(box, panel.box) for _, box in panel.blocks)

    @EVERY
    def test_blocks_frame_their_weights(self, graph: WeightGraph, blocks: tuple[Block, ...]):
        for panel in panels_of(graph, blocks):
            for block, frame in panel.blocks:
                assert all(within(panel.nodes[index], frame) for index in block.weights)
                assert within(panel.nodes[block.root], frame)

    @EVERY
    def test_data_flows_downwards(self, graph: WeightGraph, blocks: tuple[Block, ...]):
        for panel in panels_of(graph, blocks):
            for source, reader in graph.edges:
                if source in panel.nodes and reader in panel.nodes:
                    assert panel.nodes[source].bottom < panel.nodes[reader].y

    def test_a_cycle_is_laid_out(self):
        graph, _ = MODELS["tiny_dit"]
        last = len(graph.nodes) - 1
        looped = WeightGraph(graph.nodes, (*graph.edges, (last, 0)))
        assert sum(len(panel.nodes) for panel in panels_of(looped, blocks_of(looped))) == last + 1


@pytest.mark.parametrize("name", ["graph.png", "graph", "graph.svg.txt"])
def test_another_suffix_is_an_error_that_names_the_known_ones(name: str, tmp_path: Path):
    with pytest.raises(UsageError, match=r"end it in \.json, \.graphml, \.svg"):
        save_weight_graph(*MODELS["tiny_dit"], tmp_path / name)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("suffix", ["json", "graphml", "svg"])
def test_a_folder_is_not_overwritten(suffix: str, tmp_path: Path):
    path = tmp_path / f"graph.{suffix}"
    path.mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        save_weight_graph(*MODELS["tiny_dit"], path)


def within(inner: Box, outer: Box) -> bool:
    return (
        outer.x <= inner.x
        and outer.y <= inner.y
        and inner.right <= outer.right
        and inner.bottom <= outer.bottom
    )


def apart(boxes: list[Box]) -> bool:
    """True if no two of them overlap."""
    return not any(
        one.x < other.right
        and other.x < one.right
        and one.y < other.bottom
        and other.y < one.bottom
        for number, one in enumerate(boxes)
        for other in boxes[:number]
    )
