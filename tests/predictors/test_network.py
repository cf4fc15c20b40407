"""The graph network: what its predictions depend on, and what its embeddings are."""

import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from mezzotint.errors import PredictorError
from mezzotint.models import Block, WeightGraph, WeightNode
from mezzotint.predictors import Ensemble
from mezzotint.predictors.features import NodeFeatures
from mezzotint.predictors.network import GraphNetwork
from mezzotint.predictors.subgraph import Subgraph, Topology
from tests.predictors.planted import FORMATS, dataset_of, transformer

GRAPH, BLOCKS = transformer(2)
DATASET = dataset_of(GRAPH, 30)
ROWS = DATASET.configurations[:6]


def network_of(dataset, blocks=BLOCKS, seed=0):
    """A network with nothing left at its initial value, in evaluation mode."""
    torch.manual_seed(seed)
    network = GraphNetwork(NodeFeatures.of(dataset), Topology.of(dataset.graph, blocks))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for each in network.parameters():
            each.add_(0.2 * torch.randn(each.shape, generator=generator))
        for name, each in network.named_buffers():
            if each.is_floating_point():
                noise = torch.rand(each.shape, generator=generator)
                each.copy_(0.2 * noise + ("var" in name))
    return network.eval()


NETWORK = network_of(DATASET)


def predicted(network, rows):
    with torch.no_grad():
        return network(network.topology.expanded(np.asarray(rows))).predicted


def embeddings(network, rows):
    topology = network.topology
    with torch.no_grad():
        return network.embeddings(topology.whole, topology.expanded(rows), topology.hops)


def test_no_embedding_is_ever_negative():
    found = embeddings(NETWORK, ROWS)
    assert len(found) == 5
    for each in found:
        assert (each >= 0).all()
        assert (each > 0).any()


def test_the_norm_of_a_mean_is_the_mean_of_norms():
    for each in embeddings(NETWORK, ROWS):
        norm_of_mean = each.mean(1).abs().sum(1)
        torch.testing.assert_close(norm_of_mean, each.abs().sum(2).mean(1))


def test_layers_from_the_second_on_add_to_what_goes_in():
    found = embeddings(NETWORK, ROWS)
    for before, after in pairwise(found[1:]):
        assert (after >= before).all()


def test_hops_are_read_at_the_roots_of_their_blocks():
    roots = {hop: [b.root for b in BLOCKS if b.hops == hop] for hop in range(5)}
    assert [len(each) for each in roots.values()] == [2, 2, 0, 2, 0]
    topology = NETWORK.topology
    assert topology.ranked == (True, True, False, True, False)
    assert topology.pools[0].tolist() == [node.index for node in GRAPH.weights]
    for hop in (1, 3):
        assert topology.pools[hop].tolist() == roots[hop]
    for hop in (2, 4):
        assert len(topology.pools[hop]) == len(GRAPH.nodes)
    with torch.no_grad():
        norms = NETWORK(topology.expanded(ROWS)).norms
    for hop, each in enumerate(embeddings(NETWORK, ROWS)):
        expected = each[:, topology.pools[hop]].sum(2).mean(1)
        torch.testing.assert_close(norms[:, hop], expected)


def test_there_are_as_many_layers_as_the_deepest_block_needs():
    deep = Block(BLOCKS[0].kind, "deep", 21, 6, (21,), tuple(range(22)))
    assert Topology.of(GRAPH, (*BLOCKS, deep)).hops == 6


def renumbered(dataset, blocks):
    """The same model with its nodes in reverse, and the order of its columns likewise."""
    last = len(dataset.graph.nodes) - 1
    nodes = [replace(node, index=last - node.index) for node in dataset.graph.nodes][::-1]
    edges = tuple((last - source, last - reader) for source, reader in dataset.graph.edges)
    moved = [
        replace(
            block,
            root=last - block.root,
            weights=tuple(last - each for each in block.weights),
            members=tuple(last - each for each in block.members),
        )
        for block in blocks
    ]
    changed = replace(
        dataset,
        graph=WeightGraph(tuple(nodes), edges),
        configurations=dataset.configurations[:, ::-1],
        bytes=dataset.bytes[::-1],
        weight_errors=dataset.weight_errors[::-1],
        noises=dataset.noises[::-1],
    )
    return changed, moved


def test_the_order_of_nodes_does_not_matter():
    changed, moved = renumbered(DATASET, BLOCKS)
    other = network_of(changed, moved)
    # Categories are numbered as they come: those of layer types and blocks in another order.
    columns = zip(other.features.sizes, other.encoder.categories, strict=True)
    for column, (size, embed) in enumerate(columns):
        for index in range(size):
            node = (other.features.categories[..., column] == index).nonzero()[0]
            mirrored = NETWORK.features.categories[len(GRAPH.nodes) - 1 - node[0], node[1], column]
            embed.weight.data[index] = NETWORK.encoder.categories[column].weight.data[mirrored]
    torch.testing.assert_close(
        predicted(other, ROWS[:, ::-1].copy()), predicted(NETWORK, ROWS), atol=1e-4, rtol=1e-4
    )


def test_the_direction_of_edges_matters():
    turned = tuple((reader, source) for source, reader in GRAPH.edges)
    other = network_of(replace(DATASET, graph=WeightGraph(GRAPH.nodes, turned)))
    assert (predicted(other, ROWS) - predicted(NETWORK, ROWS)).abs().min() > 1e-4


@pytest.mark.parametrize(
    ("first", "second"),
    [("kmeans3/channel", "uint3/channel"), ("kmeans3/tensor", "kmeans4/tensor")],
    ids=["method at equal bits", "bits at equal method"],
)
def test_a_choice_changes_the_prediction_by_its_name_alone(first, second):
    # Size and error are made the same, so that nothing but the name differs.
    same = replace(
        DATASET,
        bytes=np.repeat(DATASET.bytes[:, :1], len(FORMATS), 1),
        weight_errors=np.repeat(DATASET.weight_errors[:, :1], len(FORMATS), 1),
    )
    rows = np.full((2, 14), FORMATS.index(first))
    rows[1, 3] = FORMATS.index(second)
    one, other = predicted(network_of(same), rows)
    assert abs(one - other) > 1e-5


@pytest.mark.parametrize("name", ["bytes", "weight_errors"])
def test_size_and_error_change_the_prediction(name):
    table = getattr(DATASET, name).copy()
    table[2] *= 2
    found = predicted(network_of(replace(DATASET, **{name: table})), ROWS)
    assert (found - predicted(NETWORK, ROWS)).abs().min() > 1e-5


@pytest.mark.parametrize("field", ["place", "role"])
def test_block_index_and_layer_type_change_the_prediction(field):
    nodes = list(GRAPH.nodes)
    at, other = (node for node in GRAPH.weights if node.place[0] == 1), GRAPH.weights[-2]
    index = next(node.index for node in at if node.role != other.role)
    assert isinstance(nodes[index], WeightNode)
    nodes[index] = replace(nodes[index], **{field: getattr(other, field)})
    changed = network_of(replace(DATASET, graph=WeightGraph(tuple(nodes), GRAPH.edges)))
    assert changed.features.sizes == NETWORK.features.sizes
    assert (predicted(changed, ROWS) - predicted(NETWORK, ROWS)).abs().min() > 1e-5


def test_configurations_of_a_batch_do_not_see_each_other():
    together = predicted(NETWORK, ROWS)
    alone = torch.cat([predicted(NETWORK, row[None]) for row in ROWS])
    torch.testing.assert_close(together, alone)


def test_a_node_that_is_read_by_itself_has_one_loop():
    part = Subgraph.of([4, 7], [(4, 7), (7, 7), (7, 9)])
    assert part.edges.T.tolist() == [[0, 1], [0, 0], [1, 1]]
    assert part.batched(2).T.tolist() == [[0, 1], [0, 0], [1, 1], [2, 3], [2, 2], [3, 3]]


def test_of_edges_of_copies_those_of_the_most_are_kept():
    part = Subgraph.of([4, 7], [(4, 7)])
    few, many, again = (part.batched(count).clone() for count in (2, 5, 2))
    assert torch.equal(few, again)
    assert torch.equal(many, Subgraph.of([4, 7], [(4, 7)]).batched(5))
    assert part.batched(2).data_ptr() == part.batched(5).data_ptr()


def test_without_pytorch_geometric_the_extra_is_named(monkeypatch):
    for name in [each for each in sys.modules if each.startswith("torch_geometric")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch_geometric", None)
    with pytest.raises(PredictorError, match=r"install mezzotint\[predictor\]"):
        Ensemble.fit(DATASET, BLOCKS)
