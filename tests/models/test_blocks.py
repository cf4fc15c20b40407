"""Blocks of small models, one by one."""

import pytest
from torch import Tensor, nn

from mezzotint.models import (
    BlockKind,
    WeightGraph,
    WeightNode,
    blocks_of,
    joined_inputs,
    trace_graph,
    weight_graph,
)
from tests.models import tiny

Described = tuple[str, str, list[str], int]


def graph_of(denoiser: nn.Module, *, split: bool = False) -> WeightGraph:
    traced = trace_graph(denoiser)
    splits = {n: s for n, s in joined_inputs(traced).items() if n.endswith("shortcut")}
    return weight_graph(denoiser, traced, splits if split else {})


def described(graph: WeightGraph, *, modulation: bool = True) -> list[Described]:
    """Kind, name, weights and hops of each block; keys less the name."""

    def key(index: int, name: str) -> str:
        node = graph.nodes[index]
        assert isinstance(node, WeightNode)
        return node.key.removeprefix(f"{name}.")

    return [
        (block.kind.value, block.name, [key(w, block.name) for w in block.weights], block.hops)
        for block in blocks_of(graph, modulation=modulation)
    ]


def names(graph: WeightGraph, indices: tuple[int, ...]) -> set[str]:
    """Keys of weights, and kinds of operations with the modules that run them."""
    return {
        node.key if isinstance(node, WeightNode) else f"{node.kind} in {node.name}"
        for node in (graph.nodes[index] for index in indices)
    }


ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
FEED_FORWARD = ["net.0.proj", "net.2"]


def test_of_a_transformer_whose_text_has_a_projection():
    blocks = [
        block
        for index in (0, 1)
        for block in (
            ("self_attention", f"transformer_blocks.{index}.attn1", ATTENTION, 3),
            ("cross_attention_scores", f"transformer_blocks.{index}.attn2", ["to_q", "to_k"], 1),
            (
                "cross_attention_values",
                f"transformer_blocks.{index}.attn2",
                ["to_v", "to_out.0"],
                2,
            ),
            ("feed_forward", f"transformer_blocks.{index}.ff", FEED_FORWARD, 1),
        )
    ]
    embedding = [f"adaln_single.emb.timestep_embedder.linear_{i}" for i in (1, 2)]
    assert described(graph_of(tiny.tiny_pixart())) == [
        ("layer", "pos_embed.proj", ["pos_embed.proj"], 0),
        ("time_embedding", "time_embedding", [*embedding, "adaln_single.linear"], 2),
        ("text_embedding", "caption_projection", ["linear_1", "linear_2"], 1),
        *blocks,
        ("layer", "proj_out", ["proj_out"], 0),
    ]


@pytest.mark.parametrize("modulation", [True, False])
def test_of_a_transformer_that_modulates_in_each_block(modulation: bool):
    name = "transformer_blocks.0"
    embedder = f"{name}.norm1.emb.timestep_embedder"
    attention = (
        [("self_attention", f"{name}.attn1", [f"{name}.norm1.linear", *ATTENTION], 4)]
        if modulation
        else [
            ("layer", f"{name}.norm1.linear", [f"{name}.norm1.linear"], 0),
            ("self_attention", f"{name}.attn1", ATTENTION, 3),
        ]
    )
    assert described(graph_of(tiny.tiny_dit()), modulation=modulation) == [
        ("layer", "pos_embed.proj", ["pos_embed.proj"], 0),
        ("time_embedding", embedder, ["linear_1", "linear_2"], 1),
        *attention,
        ("feed_forward", f"{name}.ff", FEED_FORWARD, 1),
        ("layer", "proj_out_1", ["proj_out_1"], 0),
        ("layer", "proj_out_2", ["proj_out_2"], 0),
    ]


RESIDUAL = ["conv1", "time_emb_proj", "conv2"]


@pytest.mark.parametrize("split", [True, False])
def test_of_a_u_net(split: bool):
    def shortcut(name: str) -> Described:
        halves = [f"{name}/first", f"{name}/second"]
        return ("layer", name, halves if split else [name], 1 if split else 0)

    attentions = "up_blocks.0.attentions"
    units = [
        block
        for index in (0, 1)
        for block in (
            ("residual_block", f"up_blocks.0.resnets.{index}", RESIDUAL, 2),
            shortcut(f"up_blocks.0.resnets.{index}.conv_shortcut"),
            ("layer", f"{attentions}.{index}.proj_in", [f"{attentions}.{index}.proj_in"], 0),
            *(
                (kind, f"{attentions}.{index}.transformer_blocks.0.{part}", weights, hops)
                for kind, part, weights, hops in (
                    ("self_attention", "attn1", ATTENTION, 3),
                    ("cross_attention", "attn2", ATTENTION, 3),
                    ("feed_forward", "ff", FEED_FORWARD, 1),
                )
            ),
            ("layer", f"{attentions}.{index}.proj_out", [f"{attentions}.{index}.proj_out"], 0),
        )
    ]
    assert described(graph_of(tiny.smallest_unet(), split=split)) == [
        ("time_embedding", "time_embedding", ["linear_1", "linear_2"], 1),
        ("layer", "conv_in", ["conv_in"], 0),
        ("residual_block", "down_blocks.0.resnets.0", RESIDUAL, 2),
        *units,
        ("layer", "conv_out", ["conv_out"], 0),
    ]


def test_the_root_of_a_residual_block_is_its_second_convolution():
    graph = graph_of(tiny.smallest_unet())
    (block,) = (b for b in blocks_of(graph) if b.name == "down_blocks.0.resnets.0")
    assert names(graph, (block.root,)) == {"down_blocks.0.resnets.0.conv2"}


def test_the_root_of_the_scores_is_their_product():
    graph = graph_of(tiny.tiny_pixart())
    kind = BlockKind.CROSS_ATTENTION_SCORES
    block = next(b for b in blocks_of(graph) if b.kind is kind)
    assert names(graph, (block.root,)) == {"matmul in transformer_blocks.0.attn2"}
    assert names(graph, block.members) == {
        "transformer_blocks.0.attn2.to_q",
        "transformer_blocks.0.attn2.to_k",
        "matmul in transformer_blocks.0.attn2",
    }


def test_other_weights_and_operations_within_reach_are_members():
    graph = graph_of(tiny.tiny_dit())
    (block,) = (b for b in blocks_of(graph) if b.kind is BlockKind.SELF_ATTENTION)
    assert names(graph, block.members) - names(graph, block.weights) == {
        "pos_embed.proj",
        "modulation in transformer_blocks.0.norm1",
        "matmul in transformer_blocks.0.attn1",
    }
    assert len(block.members) == 9  # two products


def test_proj_in_is_a_member_of_the_self_attention_that_reads_it():
    graph = graph_of(tiny.smallest_unet())
    block = next(b for b in blocks_of(graph) if b.kind is BlockKind.SELF_ATTENTION)
    assert "up_blocks.0.attentions.0.proj_in" in names(graph, block.members)


class Attention(nn.Module):
    """A block whose parts have the names of a known attention, with a long way to the output."""

    def __init__(self, between: int) -> None:
        super().__init__()
        self.to_q, self.to_out = nn.Linear(8, 8), nn.ModuleList([nn.Linear(8, 8)])
        self.between = nn.ModuleList(nn.Linear(8, 8) for _ in range(between))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.to_q(x)
        for layer in self.between:
            hidden = layer(hidden)
        return self.to_out[0](hidden)


class Denoiser(nn.Module):
    def __init__(self, between: int) -> None:
        super().__init__()
        self.attn = Attention(between)
        self.config = {"in_channels": 8, "sample_size": (5, 8)}

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.attn(hidden_states)


@pytest.mark.parametrize(("between", "together"), [(3, True), (4, False)])
def test_weights_too_far_for_the_predictor_stand_alone(between: int, together: bool):
    graph = graph_of(Denoiser(between))
    found = [(kind, weights, hops) for kind, _, weights, hops in described(graph)]
    pair = [("self_attention", ["to_q", "to_out.0"], 4)]
    alone = [("layer", [f"attn.{name}"], 0) for name in ("to_q", "to_out.0")]
    expected = pair if together else alone
    assert [block for block in found if "between" not in block[1][0]] == expected
