"""Small models, edge by edge: which weights and operations are nodes, and which feeds which.

Weights go by their key, operations by their kind; a second one of the same kind is marked by a
stroke, a third by two.
"""

import copy
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mezzotint.errors import ModelError, UsageError
from mezzotint.models import (
    Call,
    CombineNode,
    Role,
    WeightGraph,
    WeightNode,
    joined_inputs,
    trace_graph,
    weight_graph,
)
from tests.models import tiny
from tests.models.drawing import IMAGE, Layers, SkipConnection, X, layers

T = torch.ones(2, 1, 8)


def graph_of(model: nn.Module, *args: object, splits: dict[str, int] | None = None) -> WeightGraph:
    return weight_graph(model, trace_graph(model, Call(args, {})), splits)


def labels(graph: WeightGraph) -> list[str]:
    found: list[str] = []
    for node in graph.nodes:
        label = node.key if isinstance(node, WeightNode) else node.kind
        while label in found:
            label += "'"
        found.append(label)
    return found


def drawn(model: nn.Module, *args: object, splits: dict[str, int] | None = None) -> set[str]:
    """Each edge as `source > reader`."""
    graph = graph_of(model, *args, splits=splits)
    names = labels(graph)
    return {f"{names[source]} > {names[reader]}" for source, reader in graph.edges}


class TestWhatPassesThrough:
    @pytest.mark.parametrize(
        "between",
        [
            lambda hidden, x: F.gelu(F.layer_norm(hidden, (8,))).flatten(1).view(2, 5, 8),
            lambda hidden, x: hidden + x,
            lambda hidden, x: hidden * (1 + x) + x,
            lambda hidden, x: torch.cat([hidden, x], 1)[:, :5],
            lambda hidden, x: hidden.masked_fill(x > 0, 0.0),
            lambda hidden, x: F.scaled_dot_product_attention(hidden, hidden, hidden, x[:, :, :5]),
            lambda hidden, x: hidden + torch.arange(8),
        ],
        ids=["norm", "sum", "rotation", "concatenation", "mask", "attention", "table"],
    )
    def test_what_reads_one_weight_and_arguments_at_most(self, between: object):
        assert drawn(layers(lambda self, x: self.b(between(self.a(x), x))), X) == {"a > b"}

    def test_what_reads_arguments_alone(self):
        graph = graph_of(layers(lambda self, x, y: self.a(x + y)), X, X)
        assert labels(graph) == ["a"]

    def test_a_sum_that_adds_nothing_of_another_origin(self):
        def forward(self, x):
            hidden = self.a(x)
            return self.b((hidden + x) + hidden)

        assert drawn(layers(forward), X) == {"a > b"}


class TestOperationsThatJoin:
    def test_a_residual(self):
        def forward(self, x):
            hidden = self.a(x)
            return self.c(self.b(hidden) + hidden)

        assert drawn(layers(forward), X) == {"a > b", "a > add", "b > add", "add > c"}

    def test_a_modulated_norm_and_a_gate(self):
        def forward(self, x, t):
            shift, scale, gate = self.a(t).repeat(1, 1, 3).chunk(3, -1)
            hidden = self.b(x)
            inner = self.c(F.layer_norm(hidden, (8,)) * (1 + scale) + shift)
            return self.d(hidden + gate * inner)

        assert drawn(layers(forward), X, T) == {
            *("a > modulation", "b > modulation", "modulation > c"),
            *("a > multiply", "c > multiply", "b > add", "multiply > add", "add > d"),
        }

    def test_attention_joins_queries_and_keys_and_then_values(self):
        def forward(self, x):
            q, k, v = self.a(x), self.b(x), self.c(x)
            return self.d(F.scaled_dot_product_attention(q, k, v))

        assert drawn(layers(forward), X) == {
            *("a > matmul", "b > matmul", "matmul > matmul'", "c > matmul'", "matmul' > d"),
        }

    def test_a_concatenation(self):
        model = layers(lambda self, x: self.c(torch.cat([self.a(x), self.b(x)], 1)))
        assert drawn(model, X) == {"a > concatenate", "b > concatenate", "concatenate > c"}

    def test_a_choice(self):
        model = layers(lambda self, x: self.c(torch.where(x > 1, self.a(x), self.b(x))))
        assert drawn(model, X) == {"a > other", "b > other", "other > c"}

    def test_two_modulations_of_one_tensor_stay_two(self):
        def forward(self, x, t):
            hidden, scale = self.a(x), self.b(t)
            return self.c(hidden * scale + scale) + self.d(hidden * scale.exp() + scale)

        assert drawn(layers(forward), X, T) == {
            *("a > modulation", "b > modulation", "modulation > c"),
            *("a > modulation'", "b > modulation'", "modulation' > d", "c > add", "d > add"),
        }

    def test_one_that_nothing_reads_is_left_out(self):
        def forward(self, x):
            hidden = self.a(x)
            (self.b(x) + hidden).sum()
            return self.c(hidden)

        assert labels(graph_of(layers(forward), X)) == ["a", "b", "c"]

    def test_one_that_is_the_output_stays(self):
        assert labels(graph_of(layers(lambda self, x: self.a(x) + self.b(x)), X)) == [
            *("a", "b", "add"),
        ]


class TestWeightsThatAreUsedSeveralTimes:
    def test_a_layer_that_runs_twice_in_a_row_is_one_node(self):
        assert drawn(layers(lambda self, x: self.b(self.a(self.a(x)))), X) == {"a > b"}

    def test_a_layer_that_reads_what_it_had_a_part_in_makes_a_cycle(self):
        found = drawn(layers(lambda self, x: self.a(self.b(self.a(x)))), X)
        assert found == {"a > b", "b > a"}

    def test_tied_layers_are_one_node(self):
        model = layers(lambda self, x: self.c(self.b(self.a(x))))
        model.b.weight = model.a.weight
        assert drawn(model, X) == {"a > c"}

    def test_a_weight_that_a_function_reads_is_a_node(self):
        graph = graph_of(layers(lambda self, x: self.b(F.linear(x, self.a.weight))), X)
        assert labels(graph) == ["a", "b"]
        assert [node.quantizable for node in graph.weights] == [False, True]

    def test_operations_that_come_again_with_a_weight_are_one(self):
        def forward(self, x, t):
            def embedded():
                return self.embedding(t)

            return self.c(x + embedded()) + self.d(embedded())

        class Embedding(Layers):
            def forward(self, t: Tensor) -> Tensor:
                return self.b(self.a(t) + self.c(t)) * self.a(t)

        model = layers(forward)
        model.embedding = Embedding()
        assert drawn(model, X, T) == {
            *("embedding.a > add", "embedding.c > add", "add > embedding.b"),
            *("embedding.a > multiply", "embedding.b > multiply"),
            *("multiply > c", "multiply > d", "c > add'", "d > add'"),
        }

    def test_a_sum_of_what_a_layer_gives_to_two_others_is_no_repetition(self):
        def forward(self, x):
            hidden = self.a(x)
            return self.d(self.b(hidden) + self.c(hidden) + self.b(hidden))

        assert drawn(layers(forward), X) == {
            *("a > b", "a > c", "b > add", "c > add"),
            *("add > add'", "b > add'", "add' > d"),
        }


class TestSplitInputs:
    JOINED = frozenset({"up > concatenate", "conv_in > concatenate", "concatenate > conv1"})
    HALVES = frozenset(
        {
            *("up > conv_shortcut/first", "conv_in > conv_shortcut/second"),
            *("conv_shortcut/first > add", "conv_shortcut/second > add"),
            *("conv1 > add'", "add > add'"),
        }
    )
    BEFORE = frozenset({"conv_in > down", "down > up"})

    def test_whole(self):
        assert drawn(SkipConnection(), IMAGE) == {
            *self.BEFORE,
            *self.JOINED,
            *("concatenate > conv_shortcut", "conv_shortcut > add", "conv1 > add"),
        }

    def test_each_half_reads_its_own_part_and_the_results_are_added(self):
        model = SkipConnection()
        splits = joined_inputs(trace_graph(model, Call((IMAGE,), {})))
        found = drawn(model, IMAGE, splits=splits)
        assert found == {*self.BEFORE, *self.JOINED, *self.HALVES}

    def test_a_norm_between_passes_through(self):
        found = drawn(SkipConnection(), IMAGE, splits={"conv1": 10, "conv_shortcut": 10})
        assert found == {
            *self.BEFORE,
            *("up > conv1/first", "conv_in > conv1/second"),
            *("conv1/first > add'", "conv1/second > add'"),
            *("up > conv_shortcut/first", "conv_in > conv_shortcut/second"),
            *("conv_shortcut/first > add", "conv_shortcut/second > add"),
            *("add > add''", "add' > add''"),
        }

    @pytest.mark.parametrize(
        ("first", "edges"),
        [
            (3, {"a > d/first", "b > d/second", "c > d/second"}),
            (5, {"a > d/first", "b > d/first", "c > d/second"}),
            (4, {"concatenate > d/first", "concatenate > d/second"}),
        ],
        ids=["after one part", "after two", "within one"],
    )
    def test_three_parts(self, first: int, edges: set[str]):
        def forward(self, x):
            parts = self.a(x)[..., :3], self.b(x)[..., :2], self.c(x)[..., :3]
            return self.d(torch.cat(parts, -1))

        found = drawn(layers(forward), X, splits={"d": first})
        assert {edge for edge in found if "> d/" in edge} == edges

    def test_a_part_that_no_weight_gives(self):
        def forward(self, x):
            return self.b(torch.cat([x[..., :3], self.a(x)[..., :5]], -1))

        assert drawn(layers(forward), X, splits={"b": 3}) == {
            *("a > b/second", "b/first > add", "b/second > add"),
        }

    def test_the_halves_share_out_weights_and_inputs(self):
        graph = graph_of(SkipConnection(), IMAGE, splits={"conv_shortcut": 10})
        found = {node.key: node for node in graph.weights}
        halves = [found[f"conv_shortcut/{half}"] for half in ("first", "second")]
        assert [(n.layer, n.inputs, n.outputs, n.weights) for n in halves] == [
            ("conv_shortcut", 10, 4, 40),
            ("conv_shortcut", 6, 4, 24),
        ]
        assert graph.combines[1] == CombineNode(6, "add", "conv_shortcut", (0, 0, 0))

    @pytest.mark.parametrize(
        ("splits", "message"),
        [
            ({"conv9": 3}, "conv9: the model has no such layer"),
            ({"conv1": 0}, "conv1: 0 of its 16 input channels; give 1 to 15"),
            ({"conv1": 16}, "conv1: 16 of its 16 input channels; give 1 to 15"),
        ],
    )
    def test_one_that_cannot_be_is_an_error(self, splits: dict[str, int], message: str):
        with pytest.raises(UsageError, match=message):
            graph_of(SkipConnection(), IMAGE, splits=splits)

    def test_groups_cannot_be_split(self):
        model = nn.Sequential(nn.Conv2d(8, 8, 3, groups=2))
        with pytest.raises(UsageError, match="0: only Linear and Conv2d without groups"):
            graph_of(model, IMAGE, splits={"0": 4})


class TestNodes:
    def test_say_what_is_known_of_a_weight(self):
        denoiser = tiny.tiny_pixart()
        graph = weight_graph(denoiser, trace_graph(denoiser))
        found = {node.key: node for node in graph.weights}
        node = found["transformer_blocks.1.ff.net.0.proj"]
        assert node == WeightNode(
            index=node.index,
            key="transformer_blocks.1.ff.net.0.proj",
            layer="transformer_blocks.1.ff.net.0.proj",
            role=Role.FEED_FORWARD_IN,
            operation="linear",
            weights=16 * 64,
            inputs=16,
            outputs=64,
            place=(2, 0, 0),
        )
        assert graph.nodes[node.index] == node

    def test_stand_in_order_of_execution(self):
        graph = graph_of(layers(lambda self, x: self.b(self.d(x) + self.a(x))), X)
        assert labels(graph) == ["d", "a", "add", "b"]
        assert [node.index for node in graph.nodes] == [0, 1, 2, 3]

    def test_layers_that_a_call_does_not_use_are_none(self):
        assert labels(graph_of(layers(lambda self, x: self.c(x)), X)) == ["c"]

    def test_a_layer_whose_output_is_ignored_is_one(self):
        def forward(self, x):
            self.b(self.a(x))
            return self.c(x)

        assert drawn(layers(forward), X) == {"a > b"}


class TestWhatCannotBeFollowed:
    def test_is_an_error_that_names_the_module(self):
        class Outside(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x * float(x.max())

        model = layers(lambda self, x: self.b(self.inner.outside(self.a(x))))
        model.inner = nn.Module()
        model.inner.outside = Outside()
        with pytest.raises(
            ModelError, match=r"Outside inner\.outside: takes the values of tensors"
        ):
            graph_of(model, X)

    def test_in_the_denoiser_itself(self):
        model = layers(lambda self, x: self.b(x * self.a(x).mean().item()))
        with pytest.raises(ModelError, match=r"^Model: takes the values of tensors out of torch"):
            graph_of(model, X)

    @pytest.mark.parametrize(
        "forward", [lambda self, x: torch.ones(2), lambda self, x: x + 1], ids=["constant", "input"]
    )
    def test_an_output_without_layers(self, forward: object):
        with pytest.raises(ModelError, match="no floating Linear or Conv has a part in its output"):
            graph_of(layers(forward), X)


class TestNeighbours:
    GRAPH = graph_of(layers(lambda self, x: self.a(self.c(self.b(self.a(x)) + self.a(x)))), X)

    def test_predecessors_and_successors(self):
        assert labels(self.GRAPH) == ["a", "b", "add", "c"]
        assert self.GRAPH.predecessors == ((3,), (0,), (0, 1), (2,))
        assert self.GRAPH.successors == ((1, 2), (2,), (3,), (0,))

    @pytest.mark.parametrize(
        ("hops", "found"), [(0, {3}), (1, {3, 2}), (2, {3, 2, 1, 0}), (9, {3, 2, 1, 0})]
    )
    def test_ancestors_within_so_many_edges(self, hops: int, found: set[int]):
        assert self.GRAPH.ancestors(3, hops) == found

    def test_descendants_by_the_shortest_way(self):
        assert self.GRAPH.descendants(0, 2) == {0: 0, 1: 1, 2: 1, 3: 2}


class TestFiles:
    GRAPH = graph_of(SkipConnection(), IMAGE, splits={"conv_shortcut": 10})

    def test_a_graph_survives_a_file(self, tmp_path: Path):
        self.GRAPH.save(tmp_path / "graph.json")
        assert WeightGraph.load(tmp_path / "graph.json") == self.GRAPH

    @given(
        nodes=st.lists(st.sampled_from(["weight", "combine"]), min_size=1, max_size=8),
        data=st.data(),
    )
    def test_any_graph_survives(self, nodes: list[str], data: st.DataObject):
        place = st.tuples(*[st.integers(0, 9)] * 3)
        made = tuple(
            WeightNode(
                i, f"k{i}", "k", Role.OTHER, "conv2d", 1 + i, 1, 2, data.draw(place), bool(i % 2)
            )
            if kind == "weight"
            else CombineNode(i, "other", f"m{i}", data.draw(place))
            for i, kind in enumerate(nodes)
        )
        pairs = [(i, j) for i in range(len(nodes)) for j in range(len(nodes)) if i != j]
        edges = data.draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
        graph = WeightGraph(made, tuple(edges))
        assert WeightGraph.from_dict(json.loads(json.dumps(graph.to_dict()))) == graph

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda v: v.update(version=2), "field version"),
            (lambda v: v["nodes"][0].update(role="king"), "field nodes.0.weight.role"),
            (lambda v: v["nodes"][0].update(weights=0), "field nodes.0.weight.weights"),
            (lambda v: v["nodes"][0].update(type="edge"), "field nodes.0"),
            (lambda v: v["nodes"][0].update(place=[0, -1, 0]), "field nodes.0.weight.place.1"),
            (lambda v: v["nodes"][0].update(colour="red"), "field nodes.0.weight.colour"),
            (lambda v: v["nodes"][0].update(index=1), "node 0: its index is 1"),
            (lambda v: v["nodes"][1].update(key="conv_in"), "key 'conv_in': two nodes have it"),
            (lambda v: v["edges"].append([0, 99]), "there are 9 nodes; give indices of nodes"),
            (lambda v: v["edges"].append([3, 3]), "a node reads itself"),
            (lambda v: v["edges"].append(v["edges"][0]), "comes twice"),
            (lambda v: v["edges"].append([0]), "field edges."),
        ],
    )
    def test_what_is_none_is_an_error_that_says_where(self, change: object, message: str):
        value = copy.deepcopy(self.GRAPH.to_dict())
        change(value)
        with pytest.raises(ModelError, match="^labels/graph.json: .*" + message):
            WeightGraph.from_dict(value, "labels/graph.json")
