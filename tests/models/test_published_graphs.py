"""Graphs of the published architectures, from shapes alone."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mezzotint.models import Graph, Node, example_call, text_readers
from tests.models import architectures as published
from tests.models.architectures import Architecture, by_name, graph_of, layers_of

ALL = (*published.ALL, published.DIT)
EVERY = pytest.mark.parametrize("architecture", ALL, ids=lambda a: a.name)

NODES = {
    published.SD15: Counter(input=3, layer=282, add=108, matmul=64, concatenate=12),
    published.SDXL: Counter(input=5, layer=794, add=256, matmul=280, concatenate=10),
    published.PIXART_ALPHA: Counter(
        input=5, layer=291, modulation=57, matmul=112, multiply=56, add=85, concatenate=1
    ),
    published.PIXART_SIGMA: Counter(
        input=3, layer=287, modulation=57, matmul=112, multiply=56, add=84
    ),
    published.SD3: Counter(
        input=4, layer=341, modulation=96, matmul=48, multiply=94, add=95, concatenate=72
    ),
    published.FLUX: Counter(
        input=7, layer=504, modulation=229, matmul=114, multiply=114, add=116, concatenate=97
    ),
    published.SANA: Counter(input=3, layer=227, modulation=41, matmul=80, multiply=40, add=60),
    published.HUNYUAN_DIT: Counter(
        input=9, layer=472, modulation=121, matmul=162, add=161, concatenate=21, other=1
    ),
    published.DIT: Counter(input=3, layer=257, modulation=57, matmul=56, multiply=56, add=85),
}

MACS = {
    published.SD15: 338_610_585_600,
    published.SDXL: 2_988_660_490_240,
    published.PIXART_ALPHA: 2_151_650_525_184,
    published.PIXART_SIGMA: 2_151_649_787_904,
    published.SD3: 2_954_748_100_608,
    published.FLUX: 28_100_417_814_528,
    published.SANA: 1_443_498_864_640,
    published.HUNYUAN_DIT: 5_137_314_299_904,
    published.DIT: 114_438_979_584,
}
"""Counts of PyTorch's own `FlopCounterMode`, less Hunyuan-DiT's pooler, which no layer runs."""

LAST = {
    published.SD15: "conv_out",
    published.SDXL: "conv_out",
    published.PIXART_ALPHA: "proj_out",
    published.PIXART_SIGMA: "proj_out",
    published.SD3: "proj_out",
    published.FLUX: "proj_out",
    published.SANA: "proj_out",
    published.HUNYUAN_DIT: "proj_out",
    published.DIT: "proj_out_2",
}

FIRST = {
    published.SD15: {"conv_in"},
    published.SDXL: {"conv_in"},
    published.PIXART_ALPHA: {"pos_embed.proj"},
    published.PIXART_SIGMA: {"pos_embed.proj"},
    published.SD3: {"pos_embed.proj"},
    published.FLUX: {"x_embedder"},
    published.SANA: {"patch_embed.proj"},
    published.HUNYUAN_DIT: {"pos_embed.proj"},
    published.DIT: {"pos_embed.proj"},
}


def reached(graph: Graph, start: Iterable[int]) -> set[int]:
    """The nodes that values of `start` get to, these included."""
    found = {*start}
    for index, node in enumerate(graph.nodes):
        if found.intersection(node.sources):
            found.add(index)
    return found


def inputs(graph: Graph) -> list[int]:
    return [index for index, node in enumerate(graph.nodes) if node.kind == "input"]


def readers(graph: Graph, name: str) -> set[str]:
    """Names of the layers that read that input with no other node between."""
    (source,) = (i for i in inputs(graph) if graph.nodes[i].name == name)
    return {node.name for node in graph.nodes if node.kind == "layer" and source in node.sources}


def block(graph: Graph, prefix: str) -> list[tuple[str, list[str]]]:
    """Every node inside the module of that name, in order, and the nodes that it reads.

    Layers go by what follows the prefix, joins inside by their kind, and joins outside by the name
    of the module that runs them.
    """

    def inside(node: Node) -> bool:
        return node.name == prefix or node.name.startswith(f"{prefix}.")

    def label(node: Node) -> str:
        if not inside(node):
            return node.name
        return node.name.removeprefix(f"{prefix}.") if node.kind == "layer" else node.kind

    return [
        (label(node), [label(graph.nodes[source]) for source in node.sources])
        for node in graph.nodes
        if inside(node)
    ]


@pytest.mark.parametrize(("architecture", "counts"), **by_name(NODES))
def test_the_number_of_nodes_of_each_kind(architecture: Architecture, counts: Counter[str]):
    assert Counter(node.kind for node in graph_of(architecture).nodes) == counts


@EVERY
def test_every_layer_is_a_node(architecture: Architecture):
    graph = graph_of(architecture)
    names = {node.name for node in graph.nodes if node.kind == "layer"}
    assert names == {layer.name for layer in layers_of(architecture)}
    assert (graph.idle, graph.tied) == ((), {})


@EVERY
def test_layers_run_once_but_for_one_embedding_of_dit(architecture: Architecture):
    runs = Counter(node.name for node in graph_of(architecture).runs)
    embedding = "transformer_blocks.0.norm1.emb.timestep_embedder"
    again = [f"{embedding}.linear_{i}" for i in (1, 2)] if architecture is published.DIT else []
    assert [name for name, count in runs.items() if count > 1] == again


@EVERY
def test_every_layer_and_join_is_reached_from_an_input(architecture: Architecture):
    graph = graph_of(architecture)
    assert reached(graph, inputs(graph)) == {*range(len(graph.nodes))}


@EVERY
def test_every_layer_and_join_reaches_the_output(architecture: Architecture):
    graph = graph_of(architecture)
    used = {graph.output}
    for index in reversed(range(len(graph.nodes))):
        if index in used:
            used.update(graph.nodes[index].sources)
    unused = {node.name for i, node in enumerate(graph.nodes) if i not in used}
    # Hunyuan-DiT 1.2 takes two arguments that only 1.1 uses.
    idle = {"image_meta_size", "style"} if architecture is published.HUNYUAN_DIT else set()
    assert unused == idle


@pytest.mark.parametrize(("architecture", "macs"), **by_name(MACS))
def test_multiply_accumulates_of_all_layers(architecture: Architecture, macs: int):
    assert sum(node.macs for node in graph_of(architecture).runs) == macs
    assert sum(layer.macs for layer in layers_of(architecture)) == macs


@pytest.mark.parametrize(
    "architecture", [published.SD15, published.SANA, published.DIT], ids=lambda a: a.name
)
def test_pytorchs_flop_counter_counts_the_same(architecture: Architecture):
    denoiser = architecture.build()
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        example_call(denoiser).run(denoiser)
    counted = counter.get_flop_counts()["Global"]
    weights = {torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.convolution}
    flops = sum(count for operation, count in counted.items() if operation in weights)
    assert flops == 2 * MACS[architecture]


@pytest.mark.parametrize(("architecture", "name"), **by_name(LAST))
def test_the_last_layer_gives_the_output(architecture: Architecture, name: str):
    graph = graph_of(architecture)
    assert graph.output == len(graph.nodes) - 1
    assert graph.nodes[graph.output].name == name


@pytest.mark.parametrize(("architecture", "names"), **by_name(FIRST))
def test_the_first_layer_reads_the_latents(architecture: Architecture, names: set[str]):
    graph = graph_of(architecture)
    latents = {"sample", "hidden_states"} & {graph.nodes[i].name for i in inputs(graph)}
    assert readers(graph, *latents) == names


def test_a_residual_block_of_sdxl():
    assert block(graph_of(published.SDXL), "up_blocks.0.resnets.0") == [
        ("conv1", ["up_blocks.0"]),
        ("time_emb_proj", [""]),
        ("add", ["conv1", "time_emb_proj"]),
        ("conv2", ["add"]),
        ("conv_shortcut", ["up_blocks.0"]),
        ("add", ["conv_shortcut", "conv2"]),
    ]


def test_a_transformer_block_of_sdxl():
    found = block(graph_of(published.SDXL), "up_blocks.0.attentions.0.transformer_blocks.0")
    attended = "up_blocks.0.attentions.0.proj_in"
    assert found == [
        *((f"attn1.to_{part}", [attended]) for part in "qkv"),
        ("matmul", ["attn1.to_q", "attn1.to_k"]),
        ("matmul", ["matmul", "attn1.to_v"]),
        ("attn1.to_out.0", ["matmul"]),
        ("add", ["attn1.to_out.0", attended]),
        ("attn2.to_q", ["add"]),
        *((f"attn2.to_{part}", ["encoder_hidden_states"]) for part in "kv"),
        ("matmul", ["attn2.to_q", "attn2.to_k"]),
        ("matmul", ["matmul", "attn2.to_v"]),
        ("attn2.to_out.0", ["matmul"]),
        ("add", ["attn2.to_out.0", "add"]),
        ("ff.net.0.proj", ["add"]),
        ("ff.net.2", ["ff.net.0.proj"]),
        ("add", ["ff.net.2", "add"]),
    ]


def test_a_block_of_dit():
    assert block(graph_of(published.DIT), "transformer_blocks.3") == [
        ("norm1.emb.timestep_embedder.linear_1", ["timestep"]),
        ("norm1.emb.timestep_embedder.linear_2", ["norm1.emb.timestep_embedder.linear_1"]),
        ("add", ["norm1.emb.timestep_embedder.linear_2", "class_labels"]),
        ("norm1.linear", ["add"]),
        ("modulation", ["transformer_blocks.2", "norm1.linear"]),
        *((f"attn1.to_{part}", ["modulation"]) for part in "qkv"),
        ("matmul", ["attn1.to_q", "attn1.to_k"]),
        ("matmul", ["matmul", "attn1.to_v"]),
        ("attn1.to_out.0", ["matmul"]),
        ("multiply", ["norm1.linear", "attn1.to_out.0"]),
        ("add", ["multiply", "transformer_blocks.2"]),
        ("modulation", ["add", "norm1.linear"]),
        ("ff.net.0.proj", ["modulation"]),
        ("ff.net.2", ["ff.net.0.proj"]),
        ("multiply", ["norm1.linear", "ff.net.2"]),
        ("add", ["multiply", "add"]),
    ]


def test_a_parallel_block_of_flux():
    assert block(graph_of(published.FLUX), "single_transformer_blocks.5") == [
        ("norm.linear", ["time_text_embed"]),
        ("modulation", ["single_transformer_blocks.4", "norm.linear"]),
        ("proj_mlp", ["modulation"]),
        *((f"attn.to_{part}", ["modulation"]) for part in "qkv"),
        ("modulation", ["attn.to_q", ""]),
        ("modulation", ["attn.to_k", ""]),
        ("matmul", ["modulation", "modulation"]),
        ("matmul", ["matmul", "attn.to_v"]),
        ("concatenate", ["matmul", "proj_mlp"]),
        ("proj_out", ["concatenate"]),
        ("multiply", ["norm.linear", "proj_out"]),
        ("add", ["single_transformer_blocks.4", "multiply"]),
    ]


def test_linear_attention_of_sana_multiplies_twice():
    assert block(graph_of(published.SANA), "transformer_blocks.2.attn1") == [
        *((f"to_{part}", ["transformer_blocks.2"]) for part in "qkv"),
        ("matmul", ["to_v", "to_k"]),
        ("matmul", ["matmul", "to_q"]),
        ("to_out.0", ["matmul"]),
    ]


def test_the_pooler_of_hunyuan_dit_is_read_by_a_function():
    graph = graph_of(published.HUNYUAN_DIT)
    text = "encoder_hidden_states_t5"
    parts = ["q_proj", "k_proj", "v_proj", "c_proj"]
    assert block(graph, "time_extra_emb.pooler") == [
        *((part, [text]) for part in parts[:3]),
        ("matmul", ["q_proj", "k_proj"]),
        ("matmul", ["matmul", "v_proj"]),
        ("c_proj", ["matmul"]),
    ]
    functional = [node.name for node in graph.nodes if node.functional]
    assert functional == [f"time_extra_emb.pooler.{part}" for part in parts]


@pytest.mark.parametrize(
    ("architecture", "sizes"),
    [
        (published.SDXL, [1280, 1280, 1280, 1280, 640, 640, 640, 320, 320]),
        (published.SD15, [1280] * 7 + [640] * 3 + [320] * 2),
    ],
    ids=["SDXL", "SD 1.5"],
)
def test_skip_connections_are_concatenations_of_two(architecture: Architecture, sizes: list[int]):
    graph = graph_of(architecture)
    skips = [n for n in graph.nodes if n.kind == "concatenate" and n.name.startswith("up_blocks")]
    assert [node.inputs[0].shape[1] for node in skips] == sizes
    assert all(node.output[1] == sum(read.shape[1] for read in node.inputs) for node in skips)
    shortcuts = [node for node in graph.nodes if node.name.endswith("conv_shortcut")]
    assert [node.sections[0] for node in shortcuts if node.sections] == sizes


@pytest.mark.parametrize("architecture", [published.SD15, published.SDXL], ids=lambda a: a.name)
def test_in_u_nets_the_roles_name_who_reads_the_text(architecture: Architecture):
    found = readers(graph_of(architecture), "encoder_hidden_states")
    assert found == {*text_readers(layers_of(architecture))}


def test_in_transformers_projections_read_the_text():
    found = readers(graph_of(published.PIXART_SIGMA), "encoder_hidden_states")
    assert found == {"caption_projection.linear_1"}
    assert readers(graph_of(published.FLUX), "pooled_projections") == {
        "time_text_embed.text_embedder.linear_1"
    }


def test_a_published_graph_survives_a_file(tmp_path: Path):
    graph_of(published.HUNYUAN_DIT).save(tmp_path / "graph.json")
    assert Graph.load(tmp_path / "graph.json") == graph_of(published.HUNYUAN_DIT)
