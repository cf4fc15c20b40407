"""Small models, edge by edge: what becomes a node, and which node feeds which.

Layers and arguments go by their name, joins by their kind; a second node of the same name is marked
by a stroke, a third by two.
"""

import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mezzotint.errors import ModelError
from mezzotint.models import Call, Graph, joined_inputs, trace_graph
from tests.models.drawing import IMAGE, Layers, SkipConnection, X, layers


def traced(model: nn.Module, *args: object, **kwargs: object) -> Graph:
    return trace_graph(model, Call(args, kwargs))


def labels(graph: Graph) -> list[str]:
    found: list[str] = []
    for node in graph.nodes:
        label = node.name if node.kind in ("layer", "input") else node.kind
        while label in found:
            label += "'"
        found.append(label)
    return found


def edges(graph: Graph) -> set[str]:
    """Each edge as `source > reader`."""
    names = labels(graph)
    return {f"{names[source]} > {names[reader]}" for source, reader in graph.edges}


def written(left: Tensor, right: Tensor) -> Tensor:
    """Two halves beside each other, written into one tensor."""
    whole = torch.empty(*left.shape[:-1], 8, device=left.device)
    whole[..., :4], whole[..., 4:] = left, right
    return whole


def drawn(forward: object, *args: object, **kwargs: object) -> set[str]:
    return edges(traced(layers(forward), *(args or (X,)), **kwargs))


class TestWhatCarriesItsOriginThrough:
    def test_layers_in_a_row(self):
        assert drawn(lambda self, x: self.b(self.a(x))) == {"x > a", "a > b"}

    @pytest.mark.parametrize(
        "between",
        [
            lambda x: x.view(2, 40).reshape(2, 5, 8).flatten(1).unflatten(1, (5, 8)),
            lambda x: x.transpose(1, 2).contiguous().mT,
            lambda x: x[:, 1:, None].squeeze(2),
            lambda x: F.gelu(F.layer_norm(x, (8,))),
            lambda x: F.silu(x, inplace=True),
            lambda x: x.mul_(2).add_(1).clamp_(0),
            lambda x: x.to(torch.float64).float(),
            lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6),
            lambda x: x + torch.arange(8),
            lambda x: torch.cat([x[..., :4].sin(), x[..., 4:].cos()], -1),
            lambda x: x.chunk(2, -1)[0].repeat(1, 1, 2),
            lambda x: torch.stack(x.unbind(1), 1),
            lambda x: torch.zeros_like(x).copy_(x),
            lambda x: x.masked_fill(x > 0, 0.0),
            lambda x: F.interpolate(x, scale_factor=2)[..., :8],
            lambda x: F.scaled_dot_product_attention(x, x, x),
            lambda x: torch.einsum("bij,bkj->bik", x, x) @ x,
            lambda x: x.new_zeros(2, 5, 8) + x,
            lambda x: torch.broadcast_tensors(x, x[:, :1])[1].expand(2, 5, 8),
            lambda x: torch.utils.checkpoint.checkpoint(torch.tanh, x, use_reentrant=False),
        ],
    )
    def test_what_stands_between_layers_is_no_node(self, between: object):
        assert drawn(lambda self, x: self.b(between(self.a(x)))) == {"x > a", "a > b"}

    def test_parameters_and_tables_are_constants(self):
        model = layers(lambda self, x: self.a(x * self.table + torch.ones(8)))
        model.table = nn.Parameter(torch.ones(8))
        assert edges(traced(model, X)) == {"x > a"}

    def test_a_gated_feed_forward_of_one_projection(self):
        def forward(self, x):
            hidden, gate = self.a(x).chunk(2, dim=-1)
            return self.b(torch.cat([hidden * F.gelu(gate)] * 2, -1))

        assert drawn(forward) == {"x > a", "a > b"}

    @pytest.mark.parametrize(
        "shaped",
        [
            lambda x, y: x.type_as(y),
            lambda x, y: x.to(y),
            lambda x, y: x.view_as(y).expand_as(y),
            lambda x, y: x + torch.zeros_like(y) + y.new_ones(8) + torch.randn(y.shape),
            lambda x, y: torch.broadcast_tensors(x, y)[0],
            lambda x, y: torch.empty_like(y).copy_(x),
            lambda x, y: x * y.shape[-1] * y.ndim,
        ],
    )
    def test_a_tensor_that_is_asked_for_its_shape_is_not_read(self, shaped: object):
        found = drawn(lambda self, x: self.c(shaped(self.a(x), self.b(x))))
        assert found == {"x > a", "x > b", "a > c"}


RESIDUAL = {"x > a", "a > add", "x > add", "add > b"}


class TestAddition:
    @pytest.mark.parametrize(
        "add",
        [
            lambda x, y: x + y,
            lambda x, y: x - y,
            lambda x, y: torch.add(x, y, alpha=2),
            lambda x, y: torch.add(input=x, other=y),
            lambda x, y: x.add_(y),
            lambda x, y: x.__iadd__(y),
            lambda x, y: torch.add(x, y, out=torch.empty_like(x)),
            torch.ops.aten.add,
            torch.ops.aten.add.Tensor,
        ],
    )
    def test_a_residual_by_any_name(self, add: object):
        assert drawn(lambda self, x: self.b(add(self.a(x), x))) == RESIDUAL

    def test_what_is_added_in_place_is_seen_by_later_readers_of_the_tensor(self):
        def forward(self, x):
            hidden = self.a(x)
            hidden += x
            return self.b(hidden)

        assert drawn(forward) == RESIDUAL

    @pytest.mark.parametrize(
        "write",
        [
            lambda x, y: x[:, :2].add_(y[:, :2]),
            lambda x, y: x.view(-1).add_(y.reshape(-1)),
            lambda x, y: x.unbind(1)[0].add_(y[:, 0]),
            lambda x, y: x.transpose(1, 2)[:, 1:].mT.add_(y[..., 1:]),
        ],
    )
    def test_what_is_added_to_a_view_reaches_the_tensor_it_is_a_view_of(self, write: object):
        def forward(self, x):
            hidden = self.a(x)
            write(hidden, x)
            return self.b(hidden)

        assert drawn(forward) == RESIDUAL

    def test_what_is_added_to_a_tensor_reaches_its_views(self):
        def forward(self, x):
            hidden = self.a(x)
            view = hidden[:, :2]
            hidden.add_(x)
            return self.b(view)

        assert drawn(forward) == RESIDUAL

    def test_an_augmented_assignment_to_a_slice(self):
        def forward(self, x):
            hidden = self.a(x)
            hidden[:, :2] += x[:, :2]
            return self.b(hidden)

        assert drawn(forward) == RESIDUAL

    def test_a_sum_of_three_is_two_additions(self):
        found = drawn(lambda self, x: self.d(self.a(x) + self.b(x) + self.c(x)))
        assert found == {
            *("x > a", "x > b", "x > c", "a > add", "b > add"),
            *("add > add'", "c > add'", "add' > d"),
        }

    def test_a_residual_of_a_residual_is_a_node_of_its_own(self):
        def forward(self, x):
            hidden = self.a(x) + x
            return self.b(hidden + x)

        assert drawn(forward) == {
            "x > a",
            "a > add",
            "x > add",
            "add > add'",
            "x > add'",
            "add' > b",
        }


class TestMultiplication:
    @pytest.mark.parametrize("by", [lambda x, y: x * y, lambda x, y: x / y, lambda x, y: x.mul_(y)])
    def test_a_gated_feed_forward_of_two_projections(self, by: object):
        found = drawn(lambda self, x: self.c(by(F.silu(self.a(x)), self.b(x))))
        assert found == {"x > a", "x > b", "a > multiply", "b > multiply", "multiply > c"}

    def test_a_gated_residual(self):
        found = drawn(lambda self, x, t: x + self.a(t)[:, None] * self.b(x), X, X[:, 0])
        assert found == {
            *("t > a", "x > b", "a > multiply", "b > multiply"),
            *("multiply > add", "x > add"),
        }

    def test_an_addition_of_a_product_in_one_function(self):
        found = drawn(lambda self, x: torch.addcmul(x, self.a(x), self.b(x)))
        assert found == {
            *("x > a", "x > b", "a > multiply", "b > multiply"),
            *("multiply > add", "x > add"),
        }


MODULATED = {"t > a", "x > modulation", "a > modulation", "modulation > b"}


class TestModulation:
    @pytest.mark.parametrize(
        "modulate",
        [
            lambda x, scale, shift: F.layer_norm(x, (8,)) * (1 + scale) + shift,
            lambda x, scale, shift: shift + scale * F.group_norm(x, 5),
            lambda x, scale, shift: x.mul(scale).add_(shift),
            lambda x, scale, shift: torch.addcmul(shift, x, 1 + scale),
            lambda x, scale, shift: x + x * scale,
        ],
    )
    def test_a_modulated_norm_is_one_node(self, modulate: object):
        def forward(self, x, t):
            scale, shift = self.a(t)[:, None].repeat(1, 1, 2).chunk(2, -1)
            return self.b(modulate(x, scale, shift))

        assert drawn(forward, X, X[:, 0]) == MODULATED

    def test_scale_and_shift_of_two_layers_are_two_nodes(self):
        found = drawn(lambda self, x, t: x * self.a(t) + self.b(t), X, X)
        assert found == {
            *("t > a", "t > b", "x > multiply", "a > multiply"),
            *("multiply > add", "b > add"),
        }

    @pytest.mark.parametrize(
        "rotate",
        [
            lambda q, cos, sin: q * cos + torch.cat([-q[..., 4:], q[..., :4]], -1) * sin,
            lambda q, cos, sin: torch.stack([q[..., 0] * cos[..., 0], q[..., 1] * sin[..., 1]], -1),
            lambda q, cos, sin: written(q[..., :4] * cos[..., :4], q[..., 4:] * sin[..., 4:]),
        ],
    )
    def test_a_rotary_embedding_is_one_node(self, rotate: object):
        def forward(self, x, positions):
            return self.b(rotate(self.a(x), *positions).reshape(-1, 8))

        found = drawn(forward, X[:, :4], (X[:, :4], X[:, :4]))
        assert found == {"x > a", "a > modulation", "positions > modulation", "modulation > b"}

    def test_two_modulations_of_one_tensor_stay_two(self):
        def forward(self, x, t):
            scale, shift = self.a(t)[:, None].repeat(1, 1, 2).chunk(2, -1)
            return self.b(x * scale + shift) + self.c(x * shift + scale)

        assert drawn(forward, X, X[:, 0]) == {
            *("t > a", "x > modulation", "a > modulation", "modulation > b"),
            *("x > modulation'", "a > modulation'", "modulation' > c", "b > add", "c > add"),
        }


QKV = {"x > a", "x > b", "x > c", "a > matmul", "b > matmul"}


class TestMatmul:
    def test_attention_of_projections_of_one_input(self):
        def forward(self, x):
            q, k, v = (layer(x).unflatten(-1, (2, 4)).mT for layer in (self.a, self.b, self.c))
            return self.d(F.scaled_dot_product_attention(q, k, v).mT.flatten(-2))

        assert drawn(forward) == QKV | {"matmul > matmul'", "c > matmul'", "matmul' > d"}

    def test_attention_with_arguments_by_keyword_in_any_order(self):
        def forward(self, x):
            q, k, v = (layer(x)[:, None] for layer in (self.a, self.b, self.c))
            return self.d(F.scaled_dot_product_attention(value=v, key=k, query=q))

        assert drawn(forward) == QKV | {"matmul > matmul'", "c > matmul'", "matmul' > d"}

    @pytest.mark.parametrize(
        "scores",
        [
            lambda q, k: q @ k.mT,
            lambda q, k: torch.einsum("bij,bkj->bik", q, k),
            lambda q, k: torch.bmm(q, k.mT),
            lambda q, k: torch.baddbmm(torch.empty(2, 5, 5), q, k.mT, beta=0),
        ],
    )
    def test_attention_by_hand_multiplies_twice(self, scores: object):
        def forward(self, x):
            return self.d(scores(self.a(x), self.b(x)).softmax(-1) @ self.c(x))

        expected = {"matmul > matmul'", "c > matmul'", "matmul' > d"}
        assert drawn(forward) == QKV | expected

    def test_a_mask_among_the_arguments_is_read_as_well(self):
        def forward(self, x, mask):
            return F.scaled_dot_product_attention(self.a(x), x, x, attn_mask=mask)

        found = drawn(forward, X, torch.ones(5, 5))
        assert found == {
            *("x > a", "a > matmul", "x > matmul", "mask > matmul"),
            *("matmul > matmul'", "x > matmul'"),
        }

    @pytest.mark.parametrize(
        ("query", "shape"), [((2, 3, 5, 4), (2, 3, 5, 7)), ((5, 4), (5, 7))], ids=["heads", "alone"]
    )
    def test_scores_have_a_row_of_each_query(self, query: tuple[int, ...], shape: tuple[int, ...]):
        def forward(self, q, k):
            return F.scaled_dot_product_attention(q, k, k)

        graph = traced(layers(forward), torch.ones(query), torch.ones(*query[:-2], 7, 4))
        scores, attended = (node for node in graph.nodes if node.kind == "matmul")
        assert (scores.output, attended.output) == (shape, query)


class TestConcatenation:
    def test_a_skip_connection(self):
        assert edges(traced(SkipConnection(), IMAGE)) == {
            *("x > conv_in", "conv_in > down", "down > up"),
            *("up > concatenate", "conv_in > concatenate"),
            *("concatenate > conv1", "concatenate > conv_shortcut", "conv1 > add"),
            "conv_shortcut > add",
        }

    def test_only_who_reads_the_raw_concatenation_reads_two_sections(self):
        sections = {node.name: node.sections for node in traced(SkipConnection(), IMAGE).runs}
        assert sections.pop("conv_shortcut") == (10, 6)
        assert set(sections.values()) == {()}

    @pytest.mark.parametrize("between", [nn.Dropout(0.5), nn.Identity()])
    def test_what_changes_nothing_may_stand_between(self, between: nn.Module):
        model = SkipConnection(between).eval()
        assert joined_inputs(traced(model, IMAGE)) == {"conv_shortcut": 10}

    @pytest.mark.parametrize("between", [nn.SiLU(), nn.SiLU(inplace=True)])
    def test_what_changes_something_may_not(self, between: nn.Module):
        assert joined_inputs(traced(SkipConnection(between), IMAGE)) == {}

    @pytest.mark.parametrize(
        ("join", "sections"),
        [
            (lambda x, y: torch.cat([x, y], -1), (3, 5)),
            (lambda x, y: torch.cat((x, y), dim=2), (3, 5)),
            (lambda x, y: torch.cat(tensors=[x, y], dim=2), (3, 5)),
            (lambda x, y: torch.concat([x, y], axis=-1), (3, 5)),
            (lambda x, y: torch.cat([x, y[..., :4], y[..., 4:]], -1), (3, 4, 1)),
            (lambda x, y: torch.cat([x, torch.zeros(2, 5, 5)], -1), (3, 5)),
            (lambda x, y: torch.cat([x, x, x[..., :2]], -1), (3, 3, 2)),
            (lambda x, y: torch.cat([torch.cat([x, y], -1)] * 2, 1), ()),
            (lambda x, y: torch.cat([torch.cat([x, y], -1)], -1), ()),
            (lambda x, y: torch.cat([x, y], -1) * 1, ()),
            (lambda x, y: torch.cat([x, y], -1).clamp_(0), ()),
            (lambda x, y: torch.cat([torch.empty(0), x, y], -1), (3, 5)),
            (lambda x, y: F.pad(x, (0, 5)), ()),
        ],
    )
    def test_sections_of_a_linear_layer(self, join: object, sections: tuple[int, ...]):
        def forward(self, x):
            return self.c(join(self.a(x)[..., :3], self.b(x)[..., :5]))

        (node,) = (node for node in traced(layers(forward), X).nodes if node.name == "c")
        assert node.sections == sections

    def test_only_two_sections_are_split(self):
        def forward(self, x):
            self.b(torch.cat([x[..., :2], self.a(x)[..., :6]], -1))
            return self.c(torch.cat([x[..., :2], x[..., :2], self.a(x)[..., :4]], -1))

        assert joined_inputs(traced(layers(forward), X)) == {"b": 2}

    @pytest.mark.parametrize(
        "join",
        [
            lambda x, y: torch.cat([x, y], 1),
            lambda x, y: torch.stack([x, y]),
            lambda x, y: torch.hstack([x, y]),
        ],
    )
    def test_parts_of_different_origin(self, join: object):
        found = drawn(lambda self, x: self.c(join(self.a(x), self.b(x))))
        assert found == {"x > a", "x > b", "a > concatenate", "b > concatenate", "concatenate > c"}

    @pytest.mark.parametrize("write", ["assign", "copy"])
    def test_parts_written_into_one_tensor(self, write: str):
        def forward(self, x):
            joined = torch.empty(2, 10, 8, device=x.device)
            if write == "assign":
                joined[:, :5], joined[:, 5:] = self.a(x), self.b(x)
            else:
                joined[:, :5].copy_(self.a(x))
                joined[:, 5:].copy_(self.b(x))
            return self.c(joined)

        found = drawn(forward)
        assert found == {"x > a", "x > b", "a > concatenate", "b > concatenate", "concatenate > c"}

    def test_what_is_overwritten_as_a_whole_is_forgotten(self):
        def forward(self, x):
            hidden = self.a(x)
            hidden.view(-1).copy_(self.b(x).view(-1))
            return self.c(hidden)

        assert drawn(forward) == {"x > a", "x > b", "b > c"}


class TestOtherJoins:
    def test_a_mask_among_the_arguments(self):
        found = drawn(lambda self, x, mask: self.a(x).masked_fill(mask, 0.0), X, X > 0)
        assert found == {"x > a", "a > other", "mask > other"}

    def test_a_choice_by_a_condition(self):
        found = drawn(lambda self, x: torch.where(self.a(x) > 0, self.b(x), x))
        assert found == {"x > a", "x > b", "a > other", "b > other", "x > other"}

    def test_a_module_that_leaves_torch_counts_as_one_operation(self):
        class Sum(nn.Module):
            def forward(self, x: Tensor, y: Tensor) -> Tensor:
                return torch.from_numpy(x.numpy() + y.numpy())

        model = layers(lambda self, x: self.b(self.sum(self.a(x), x)))
        model.sum = Sum()
        assert edges(traced(model, X)) == {"x > a", "a > other", "x > other", "other > b"}


class TestValuesThatLeaveTorch:
    class Outside(nn.Module):
        def __init__(self, leave: object) -> None:
            super().__init__()
            self.leave = leave

        def forward(self, x: Tensor) -> Tensor:
            return self.leave(x)

    def left(self, leave: object, start: object = None) -> tuple[str, ...]:
        model = layers(lambda self, x: self.c(self.outside((start or self.a)(x))))
        model.outside = self.Outside(leave)
        return traced(model, X).left

    @pytest.mark.parametrize(
        "leave",
        [
            lambda x: x + float(x.max()),
            lambda x: x + x.max().item(),
            lambda x: torch.tensor(x.tolist()),
            lambda x: torch.from_numpy(x.numpy()) + 1,
        ],
        ids=["float", "item", "list", "array"],
    )
    def test_are_told_by_the_module_that_lets_them_go(self, leave: object):
        assert self.left(leave) == ("outside",)

    def test_of_an_argument_alone_are_none(self):
        assert self.left(lambda x: x * float(x.max()), lambda x: x) == ()

    @pytest.mark.parametrize(
        "leave",
        [
            lambda x: x if x.sum() > 0 else -x,
            lambda x: x[: int(x.argmax()) + 1] + x.argmax().item(),
            lambda x: x.float() + x.shape[0],
        ],
        ids=["condition", "index", "same tensor"],
    )
    def test_that_decide_and_count_are_none(self, leave: object):
        assert self.left(leave) == ()

    def test_in_a_module_that_counts_as_one_operation_are_none(self):
        assert self.left(lambda x: torch.from_numpy(x.numpy())) == ()

    def test_are_kept_in_a_file(self):
        model = layers(lambda self, x: self.b(x * float(self.a(x).max())))
        graph = traced(model, X)
        assert Graph.from_dict(graph.to_dict()).left == ("",)


class TestArguments:
    def test_dictionaries_and_further_keywords_go_by_their_keys(self):
        def forward(self, x, *, added, **rest):
            return self.a(x) + self.b(added["text"]) + rest["late"]

        found = drawn(forward, X, added={"text": X, "unused": None}, late=X)
        assert found == {
            *("x > a", "added.text > b", "a > add", "b > add"),
            *("add > add'", "late > add'"),
        }

    def test_tensors_in_a_list_are_one_argument(self):
        def forward(self, x, residuals):
            for residual in residuals:
                x = self.a(x) + residual
            return x

        found = drawn(forward, X, [X, 2 * X])
        assert found == {
            *("x > a", "a > add", "residuals > add"),
            *("add > a'", "a' > add'", "residuals > add'"),
        }

    def test_a_layer_may_be_given_its_input_by_keyword(self):
        assert drawn(lambda self, x: self.b(input=self.a(input=x))) == {"x > a", "a > b"}

    def test_an_argument_that_is_not_used_feeds_nothing(self):
        graph = traced(layers(lambda self, x, y: self.a(x)), X, X)
        assert [node.name for node in graph.nodes] == ["x", "y", "a"]
        assert edges(graph) == {"x > a"}


class TestLayers:
    def test_a_layer_that_runs_twice_has_two_nodes(self):
        graph = traced(layers(lambda self, x: self.a(self.b(self.a(x)))), X)
        assert edges(graph) == {"x > a", "a > b", "b > a'"}
        assert [node.macs for node in graph.runs] == [640, 640, 640]

    def test_a_layer_that_never_runs_is_idle(self):
        graph = traced(layers(lambda self, x: self.c(self.a(x))), X)
        assert graph.idle == ("b", "d")
        assert edges(graph) == {"x > a", "a > c"}

    def test_an_output_that_is_ignored_feeds_nothing(self):
        def forward(self, x):
            self.b(x)
            return self.a(x)

        graph = traced(layers(forward), X)
        assert edges(graph) == {"x > a", "x > b"}
        assert graph.nodes[graph.output].name == "a"

    def test_nodes_come_in_order_of_execution(self):
        graph = traced(layers(lambda self, x: self.b(self.d(x) + self.a(x))), X)
        assert labels(graph) == ["x", "d", "a", "add", "b"]

    def test_a_constant_output_comes_from_no_node(self):
        assert traced(layers(lambda self, x: torch.ones(2)), X).output is None

    def test_shapes_and_multiply_accumulates(self):
        graph = traced(nn.Sequential(nn.Conv2d(8, 4, 3, stride=2, padding=1)), IMAGE)
        (run,) = graph.runs
        assert (run.operation, run.inputs[0].shape, run.output) == (
            "conv2d",
            (2, 8, 6, 6),
            (2, 4, 3, 3),
        )
        assert run.macs == 2 * 3 * 3 * (4 * 8 * 3 * 3)

    def test_shapes_that_a_join_reads_and_makes(self):
        graph = traced(layers(lambda self, x: torch.cat([x[:, :2], self.a(x)], 1)), X)
        join = graph.nodes[-1]
        assert [read.shape for read in join.inputs] == [(2, 2, 8), (2, 5, 8)]
        assert (join.operation, join.output) == ("cat", (2, 7, 8))

    def test_joins_go_by_the_module_that_runs_them(self):
        class Block(Layers):
            def forward(self, x: Tensor) -> Tensor:
                return x + self.a(x)

        graph = traced(nn.Sequential(Block(), Block()), X)
        assert [node.name for node in graph.nodes if node.kind == "add"] == ["0", "1"]

    def test_tied_weights_are_named(self):
        model = layers(lambda self, x: self.c(self.a(x)))
        model.c.weight = model.a.weight
        assert traced(model, X).tied == {"c": "a"}
        assert edges(traced(model, X)) == {"x > a", "a > c"}


class TestWeightsThatFunctionsRead:
    @pytest.mark.parametrize(
        "read",
        [
            lambda layer, x: F.linear(x, layer.weight, layer.bias),
            lambda layer, x: x @ layer.weight.mT + layer.bias,
            lambda layer, x: torch.addmm(layer.bias, x[0], layer.weight.t()),
            lambda layer, x: layer.forward(x),
            lambda layer, x: F.linear(x, layer.weight.to(x.dtype).clone()),
        ],
    )
    def test_data_passes_through_the_layer(self, read: object):
        graph = traced(layers(lambda self, x: self.b(read(self.a, x))), X)
        assert edges(graph) == {"x > a", "a > b"}
        assert [node.functional for node in graph.nodes] == [False, True, False]
        assert [node.name for node in graph.runs] == ["b"]
        assert "a" not in graph.idle

    def test_a_weight_that_is_read_twice_has_two_nodes(self):
        def forward(self, x):
            return F.linear(F.linear(x, self.a.weight), self.a.weight)

        assert drawn(forward) == {"x > a", "a > a'"}

    def test_the_projections_of_attention_in_one_function(self):
        def forward(self, x):
            weights = {
                f"{key}_proj_weight": layer.weight
                for key, layer in zip("qkv", (self.a, self.b, self.c), strict=True)
            }
            output, _ = F.multi_head_attention_forward(
                *(x, x, x, 8, 2, None, torch.cat([self.a.bias, self.b.bias, self.c.bias])),
                *(None, None, False, 0.0, self.d.weight, self.d.bias),
                **weights,
                use_separate_proj_weight=True,
                need_weights=False,
            )
            return output

        assert drawn(forward) == QKV | {"matmul > matmul'", "c > matmul'", "matmul' > d"}

    def test_multi_head_attention_of_torch(self):
        class Attention(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.heads = nn.MultiheadAttention(8, 2)

            def forward(self, x: Tensor, text: Tensor) -> Tensor:
                return self.heads(x, text, text)[0]

        graph = traced(Attention(), torch.ones(5, 2, 8), torch.ones(7, 2, 8))
        assert edges(graph) == {
            *("x > matmul", "text > matmul", "matmul > matmul'", "text > matmul'"),
            "matmul' > heads.out_proj",
        }
        assert next(n.output for n in graph.nodes if n.kind == "matmul") == (2, 2, 5, 7)

    def test_a_weight_that_is_asked_for_its_dtype_is_not_read(self):
        found = drawn(lambda self, x: self.b(x.to(self.a.weight.dtype).type_as(self.a.weight)))
        assert found == {"x > b"}


class TestRuns:
    def test_a_model_that_looks_at_values_is_run_for_real(self):
        def forward(self, x):
            return self.a(x) + (self.b(x) if x.sum().item() > 0 else self.c(x))

        assert drawn(forward) == {"x > a", "x > b", "a > add", "b > add"}

    def test_a_real_run_gives_the_same_graph(self):
        def forward(self, x):
            hidden = self.a(x)
            hidden[:, :2] += self.b(x)[:, :2]
            return F.scaled_dot_product_attention(self.c(x), hidden, hidden)

        def looking(self, x):
            return forward(self, x * float(x.max()))

        assert traced(layers(looking), X) == traced(layers(forward), X)

    def test_a_real_run_leaves_the_model_as_it_was(self):
        model = layers(lambda self, x: self.a(x * float(x.max())))
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        traced(model, X)
        assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())

    def test_a_real_run_holds_no_more_tensors_than_the_model_does(self):
        seen: list[weakref.ref[Tensor]] = []

        def forward(self, x):
            for layer in (self.a, self.b, self.c):
                x = layer(x * float(x.max()))
                gc.collect()
                assert all(tensor() is None for tensor in seen)
                seen.append(weakref.ref(x))
            return x

        traced(layers(forward), X)
        assert len(seen) == 3

    def test_under_inference_mode(self):
        def forward(self, x):
            hidden = self.a(x)
            hidden += x
            return hidden

        with torch.inference_mode():
            assert drawn(forward, torch.ones(2, 5, 8)) == {"x > a", "a > add", "x > add"}

    def test_an_error_names_the_module_that_fails(self):
        class Failing(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                raise RuntimeError("no such thing")

        model = nn.Sequential(nn.Linear(8, 8), nn.Sequential(Failing()))
        with pytest.raises(ModelError, match=r"in 1\.0: no such thing"):
            traced(model, X)

    def test_a_call_that_does_not_fit_is_an_error(self):
        with pytest.raises(ModelError, match="Model cannot be run on the given call"):
            traced(layers(lambda self, x: self.a(x)), X, X)


class TestWhichLayersReadTheVerySameTensor:
    @pytest.mark.parametrize(
        ("forward", "same"),
        [
            (lambda self, x: self.a(x) + self.b(x), True),
            (lambda self, x: self.a(x.view(10, 8)) + self.b(x.view(10, 8)), True),
            (lambda self, x: self.a(x[:, 1:]) + self.b(x[:, 1:]), True),
            (lambda self, x: self.a(x[:, 1:]) + self.b(x[:, :-1]), False),
            (lambda self, x: self.a(x) + self.b(x * 1.0), False),
            (lambda self, x: self.a(x) + self.b(x.clone()), False),
            (lambda self, x: self.a(x) + self.b(x.add_(1)), False),
            (lambda self, x: self.a(F.silu(x)) + self.b(F.silu(x)), False),
        ],
        ids=["object", "view", "slice", "slices", "product", "copy", "written to", "recomputed"],
    )
    def test_they_are_siblings(self, forward: object, same: bool):
        found = traced(layers(forward), X).siblings
        assert found["a"] == (("a", "b") if same else ("a",))

    def test_numbers_of_tensors_that_are_gone_are_not_given_again(self):
        def forward(self, x):
            for layer in (self.a, self.b, self.c, self.d):
                x = layer(x.clone())
                gc.collect()
            return x

        groups = set(traced(layers(forward), X).siblings.values())
        assert groups == {("a",), ("b",), ("c",), ("d",)}
