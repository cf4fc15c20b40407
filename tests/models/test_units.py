"""The module that layers of one kind share."""

import pytest

from mezzotint.models import Role
from mezzotint.models.units import unit_of


@pytest.mark.parametrize(
    ("layer", "role", "unit"),
    [
        ("blocks.3.attn1.to_q", Role.SELF_ATTENTION_Q, "blocks.3.attn1"),
        ("blocks.3.attn1.to_out.0", Role.SELF_ATTENTION_OUT, "blocks.3.attn1"),
        ("blocks.3.attn.to_add_out", Role.JOINT_ATTENTION_OUT, "blocks.3.attn"),
        ("blocks.3.ff.net.0.proj", Role.FEED_FORWARD_IN, "blocks.3.ff"),
        ("blocks.3.ff.net.2", Role.FEED_FORWARD_OUT, "blocks.3.ff"),
        ("blocks.3.ff_context.net.2", Role.FEED_FORWARD_OUT, "blocks.3.ff_context"),
        ("blocks.3.proj_mlp", Role.FEED_FORWARD_IN, "blocks.3"),
        ("up_blocks.0.resnets.1.conv2", Role.RESNET_CONV, "up_blocks.0.resnets.1"),
        ("up_blocks.0.resnets.1.conv1.conv", Role.RESNET_CONV, "up_blocks.0.resnets.1"),
        ("up_blocks.0.resnets.1.time_emb_proj", Role.TIME_PROJECTION, "up_blocks.0.resnets.1"),
        ("caption_projection.linear_1", Role.TEXT_PROJECTION, "caption_projection"),
        ("time_embed.0", Role.TIME_EMBEDDING, "time_embed"),
        ("context_embedder", Role.TEXT_PROJECTION, ""),
    ],
)
def test_of_a_layer(layer: str, role: Role, unit: str):
    assert unit_of(layer, role) == unit
