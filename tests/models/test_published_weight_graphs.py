"""Graphs of weights of the published architectures and the embedded models, and their blocks."""

import functools
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from mezzotint.models import (
    MAX_HOPS,
    Block,
    WeightGraph,
    WeightNode,
    blocks_of,
    list_embedded,
    resolve,
)
from tests.models import architectures as published
from tests.models.architectures import Architecture, by_name, weight_graph_of


def embedded(name: str, component: str) -> Architecture:
    folder = resolve(name).folder
    assert folder is not None
    config = json.loads((folder / component / "config.json").read_text("utf-8"))
    config = {key: value for key, value in config.items() if not key.startswith("_")} | {
        "_class_name": config["_class_name"]
    }
    return Architecture(name, config.pop("_class_name"), config)


EMBEDDED = {
    name: embedded(name, component)
    for name, component in (
        ("emoji-dit", "transformer"),
        ("emoji-teacher", "unet"),
        ("emoji-turbo", "unet"),
    )
}

COMPARED = (
    published.DIT,
    published.SD15,
    published.PIXART_ALPHA_512,
    published.HUNYUAN_DIT,
    published.SDXL,
)
ALL = (*COMPARED, *EMBEDDED.values())
EVERY = pytest.mark.parametrize("architecture", ALL, ids=lambda a: a.name)

OPERATIONS = {
    published.DIT: Counter(modulation=57, matmul=56, multiply=56, add=56),
    published.SD15: Counter(matmul=64, add=120, concatenate=12),
    published.PIXART_ALPHA_512: Counter(modulation=57, matmul=112, multiply=56, add=84),
    published.HUNYUAN_DIT: Counter(add=180, matmul=162, modulation=1),
    published.SDXL: Counter(matmul=280, add=265, concatenate=9),
    EMBEDDED["emoji-dit"]: Counter(modulation=17, matmul=32, multiply=16, add=24),
}

BLOCKS = {
    published.DIT: Counter(
        {
            ("time_embedding", 2, 1): 28,
            ("self_attention", 5, 4): 28,
            ("feed_forward", 2, 1): 28,
            ("layer", 1, 0): 3,
        }
    ),
    published.SD15: Counter(
        {
            ("time_embedding", 2, 1): 1,
            ("self_attention", 4, 3): 16,
            ("cross_attention", 4, 3): 16,
            ("feed_forward", 2, 1): 16,
            ("residual_block", 3, 2): 22,
            ("layer", 2, 1): 12,
            ("layer", 1, 0): 2 + 2 + 32 + 6,
        }
    ),
    published.PIXART_ALPHA_512: Counter(
        {
            ("time_embedding", 3, 2): 1,
            ("text_embedding", 2, 1): 1,
            ("self_attention", 4, 3): 28,
            ("cross_attention_scores", 2, 1): 28,
            ("cross_attention_values", 2, 2): 28,
            ("feed_forward", 2, 1): 28,
            ("layer", 1, 0): 2,
        }
    ),
    published.HUNYUAN_DIT: Counter(
        {
            ("time_embedding", 4, 2): 1,
            ("text_embedding", 2, 1): 1,
            ("text_embedding", 4, 3): 1,
            ("self_attention", 5, 4): 40,
            ("cross_attention_scores", 2, 1): 40,
            ("cross_attention_values", 2, 2): 40,
            ("feed_forward", 2, 1): 40,
            ("layer", 2, 1): 19,
            ("layer", 1, 0): 3,
        }
    ),
    published.SDXL: Counter(
        {
            ("time_embedding", 4, 2): 1,
            ("self_attention", 4, 3): 70,
            ("cross_attention", 4, 3): 70,
            ("feed_forward", 2, 1): 70,
            ("residual_block", 3, 2): 17,
            ("layer", 2, 1): 9,
            ("layer", 1, 0): 2 + 2 + 22 + 4,
        }
    ),
    EMBEDDED["emoji-dit"]: Counter(
        {
            ("time_embedding", 3, 2): 1,
            ("text_embedding", 2, 1): 1,
            ("self_attention", 4, 3): 8,
            ("cross_attention_scores", 2, 1): 8,
            ("cross_attention_values", 2, 2): 8,
            ("feed_forward", 2, 1): 8,
            ("layer", 1, 0): 2,
        }
    ),
}
"""Kind, weights and hops of a block → how many there are."""


@functools.cache
def blocks(architecture: Architecture) -> tuple[Block, ...]:
    return blocks_of(weight_graph_of(architecture))


def test_every_embedded_model_is_among_them():
    assert set(EMBEDDED) == set(list_embedded())


@pytest.mark.parametrize(("architecture", "counts"), **by_name(OPERATIONS))
def test_the_number_of_operations_of_each_kind(architecture: Architecture, counts: Counter[str]):
    assert Counter(node.kind for node in weight_graph_of(architecture).combines) == counts


@pytest.mark.parametrize(("architecture", "counts"), **by_name(BLOCKS))
def test_the_number_of_blocks_of_each_kind(architecture: Architecture, counts: Counter[object]):
    found = Counter((b.kind.value, len(b.weights), b.hops) for b in blocks(architecture))
    assert found == counts


@EVERY
def test_every_weight_is_in_one_block(architecture: Architecture):
    found = [index for block in blocks(architecture) for index in block.weights]
    assert sorted(found) == [node.index for node in weight_graph_of(architecture).weights]


@EVERY
def test_kind_and_name_tell_blocks_apart(architecture: Architecture):
    assert len({(block.kind, block.name) for block in blocks(architecture)}) == len(
        blocks(architecture)
    )


@EVERY
def test_hops_are_the_way_of_the_farthest_weight(architecture: Architecture):
    graph = weight_graph_of(architecture)
    for block in blocks(architecture):
        ways = [graph.descendants(weight, MAX_HOPS)[block.root] for weight in block.weights]
        assert max(ways) == block.hops


@EVERY
def test_members_have_all_their_predecessors_within_reach_of_the_root(architecture: Architecture):
    graph = weight_graph_of(architecture)
    for block in blocks(architecture):
        for member in graph.ancestors(block.root, block.hops - 1) if block.hops else ():
            assert {*graph.predecessors[member]} <= {*block.members}


@EVERY
def test_every_weight_gets_to_the_last_layer(architecture: Architecture):
    graph = weight_graph_of(architecture)
    assert graph.ancestors(graph.nodes[-1].index, len(graph.nodes)) == {*range(len(graph.nodes))}


WIDTH = 5


@dataclass(frozen=True)
class Network:
    """Layers of message passing with attention over predecessors, of random weights."""

    own: Tensor
    read: Tensor
    attention: Tensor

    @classmethod
    def random(cls) -> "Network":
        generator = torch.Generator().manual_seed(0)
        size = (MAX_HOPS, WIDTH, WIDTH)
        draws = [torch.randn(size, generator=generator, dtype=torch.float64) for _ in range(2)]
        return cls(*draws, torch.randn(size[:2], generator=generator, dtype=torch.float64))

    def embeddings(self, x: Tensor, edges: Sequence[tuple[int, int]], layers: int) -> list[Tensor]:
        """What each node knows after 0, 1, … layers: [nodes, WIDTH] each."""
        source, reader = torch.tensor([*edges], dtype=torch.long).reshape(-1, 2).T
        found = [x]
        for own, read, attention in zip(self.own, self.read, self.attention, strict=True):
            messages = (found[-1] @ read)[source]
            scores = ((messages + (found[-1] @ own)[reader]).tanh() @ attention).exp()
            weight = torch.zeros(len(x), dtype=x.dtype).index_add(0, reader, scores)
            sums = torch.zeros_like(x).index_add(0, reader, scores[:, None] * messages)
            # Smooth, so that nothing is cut off by chance.
            found.append((found[-1] @ own + sums / (1 + weight[:, None])).tanh() + found[-1])
        return found[: layers + 1]


NETWORK = Network.random()


def features(graph: WeightGraph) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(len(graph.nodes), WIDTH, generator=generator, dtype=torch.float64)


def alone(graph: WeightGraph, block: Block, members: Sequence[int], x: Tensor) -> Tensor:
    """Embedding of a block's root in the graph of these members alone."""
    numbers = {member: number for number, member in enumerate(members)}
    edges = [(numbers[s], numbers[r]) for s, r in graph.edges if {s, r} <= numbers.keys()]
    found = NETWORK.embeddings(x[list(members)], edges, block.hops)
    return found[block.hops][numbers[block.root]]


@EVERY
def test_a_block_by_itself_scores_as_in_the_whole_graph(architecture: Architecture):
    graph = weight_graph_of(architecture)
    x = features(graph)
    whole = NETWORK.embeddings(x, graph.edges, MAX_HOPS)
    for block in blocks(architecture):
        found = alone(graph, block, block.members, x)
        torch.testing.assert_close(found, whole[block.hops][block.root], rtol=0, atol=1e-12)


@pytest.mark.parametrize("architecture", EMBEDDED.values(), ids=list(EMBEDDED))
def test_each_member_counts(architecture: Architecture):
    graph = weight_graph_of(architecture)
    x = features(graph)
    for block in blocks(architecture):
        whole = alone(graph, block, block.members, x)
        for member in {*block.members} - {block.root}:
            rest = [each for each in block.members if each != member]
            assert not torch.equal(alone(graph, block, rest, x), whole)


def test_halves_of_shortcuts_are_weights_of_their_own():
    keys = {node.key for node in weight_graph_of(published.SDXL).weights}
    halves = {key for key in keys if "/" in key}
    assert len(halves) == 18
    assert {key.partition("/")[0].rpartition(".")[2] for key in halves} == {"conv_shortcut"}


def test_hunyuans_pooler_cannot_be_quantized():
    graph = weight_graph_of(published.HUNYUAN_DIT)
    fixed = [node.key for node in graph.weights if not node.quantizable]
    assert fixed == [f"time_extra_emb.pooler.{part}_proj" for part in "qkvc"]


def test_rotary_embeddings_pass_through():
    graph = weight_graph_of(published.HUNYUAN_DIT)
    (scores,) = (
        node.index
        for node in graph.combines
        if node.name == "blocks.7.attn1" and {*graph.predecessors[node.index]} <= {*keys(graph)}
    )
    names = {graph.nodes[index].key for index in graph.predecessors[scores]}
    assert names == {"blocks.7.attn1.to_q", "blocks.7.attn1.to_k"}


def keys(graph: WeightGraph) -> dict[int, str]:
    return {node.index: node.key for node in graph.nodes if isinstance(node, WeightNode)}
