"""Stage, block and transformer block of a module."""

from torch import nn

from mezzotint.models.places import places_of
from mezzotint.models.weight_graph import Place
from tests.models import architectures as published
from tests.models.architectures import graph_of

PLACES: dict[str, Place] = {
    "conv_in": (0, 0, 0),
    "time_embedding.linear_2": (0, 0, 0),
    "down_blocks.0.resnets.0.conv1": (1, 1, 0),
    "down_blocks.0.attentions.0.proj_in": (1, 1, 0),
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q": (1, 1, 1),
    "down_blocks.0.resnets.1.conv2": (1, 2, 0),
    "down_blocks.0.downsamplers.0.conv": (1, 3, 0),
    "down_blocks.1.resnets.0.time_emb_proj": (1, 4, 0),
    "mid_block.resnets.0.conv1": (2, 1, 0),
    "mid_block.attentions.0.transformer_blocks.0.ff.net.2": (2, 1, 1),
    "mid_block.resnets.1.conv1": (2, 2, 0),
    "up_blocks.0.resnets.2.conv_shortcut": (3, 3, 0),
    "up_blocks.0.upsamplers.0.conv": (3, 4, 0),
    "up_blocks.1.resnets.0.conv1": (3, 5, 0),
    "up_blocks.3.attentions.2.transformer_blocks.0.attn2.to_v": (3, 15, 1),
    "conv_out": (0, 0, 0),
}


def test_of_the_layers_of_a_u_net():
    names = [node.name for node in graph_of(published.SD15).runs]
    found = dict(zip(names, places_of(names, published.SD15.build()), strict=True))
    assert {name: found[name] for name in PLACES} == PLACES


def test_of_several_transformer_blocks_in_a_row():
    name = "mid_block.attentions.0.transformer_blocks.9.attn2.to_k"
    assert places_of([name], nn.Module()) == ((2, 1, 10),)


def test_of_the_blocks_of_a_transformer_one_list_after_the_other():
    model = nn.Module()
    model.embedder = nn.Linear(1, 1)
    model.transformer_blocks = nn.ModuleList([nn.ModuleDict({"ff": nn.Linear(1, 1)})] * 2)
    model.single_transformer_blocks = nn.ModuleList([nn.Linear(1, 1)])
    names = ["embedder", "transformer_blocks.0.ff", "transformer_blocks.1.ff"]
    found = places_of([*names, "single_transformer_blocks.0"], model)
    assert found == ((0, 0, 0), (1, 0, 0), (2, 0, 0), (3, 0, 0))


def test_a_stage_joins_for_the_block_that_comes_next():
    names = ["up_blocks.0", "up_blocks.0.resnets.0.conv1", "up_blocks.0", "up_blocks.0.resnets.1"]
    assert places_of(names, nn.Module()) == ((3, 1, 0), (3, 1, 0), (3, 2, 0), (3, 2, 0))


def test_lists_of_modules_anywhere_hold_blocks():
    model = nn.Module()
    model.trunk = nn.Module()
    model.trunk.steps = nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)])
    model.head = nn.Sequential(nn.Linear(1, 1))
    names = ["trunk.steps.1", "head.0", "trunk", "", "trunk.steps.0"]
    assert places_of(names, model) == ((1, 0, 0), (0, 0, 0), (0, 0, 0), (0, 0, 0), (2, 0, 0))
