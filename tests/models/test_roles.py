"""Roles, on the published architectures and on single places."""

from collections import Counter

import pytest
from torch import nn

from mezzotint.models import Role, role_of
from tests.models import architectures as published
from tests.models.architectures import Architecture, layers_of

A = "down_blocks.1.attentions.0"
PLACES = [
    (published.SD15, "conv_in", Role.INPUT),
    (published.SD15, "conv_out", Role.OUTPUT),
    (published.SD15, "time_embedding.linear_1", Role.TIME_EMBEDDING),
    (published.SD15, "down_blocks.0.resnets.1.conv2", Role.RESNET_CONV),
    (published.SD15, "up_blocks.1.resnets.0.conv_shortcut", Role.SHORTCUT),
    (published.SD15, "mid_block.resnets.0.time_emb_proj", Role.TIME_PROJECTION),
    (published.SD15, "down_blocks.0.downsamplers.0.conv", Role.DOWNSAMPLE),
    (published.SD15, "up_blocks.0.upsamplers.0.conv", Role.UPSAMPLE),
    (published.SD15, f"{A}.proj_in", Role.ATTENTION_IN),
    (published.SD15, f"{A}.proj_out", Role.ATTENTION_OUT),
    (published.SD15, f"{A}.transformer_blocks.0.attn1.to_q", Role.SELF_ATTENTION_Q),
    (published.SD15, f"{A}.transformer_blocks.0.attn1.to_out.0", Role.SELF_ATTENTION_OUT),
    (published.SD15, f"{A}.transformer_blocks.0.attn2.to_k", Role.CROSS_ATTENTION_K),
    (published.SD15, f"{A}.transformer_blocks.0.ff.net.0.proj", Role.FEED_FORWARD_IN),
    (published.SD15, f"{A}.transformer_blocks.0.ff.net.2", Role.FEED_FORWARD_OUT),
    (published.SDXL, "add_embedding.linear_1", Role.TIME_EMBEDDING),
    (published.PIXART_SIGMA, "pos_embed.proj", Role.INPUT),
    (published.PIXART_SIGMA, "adaln_single.linear", Role.MODULATION),
    (published.PIXART_SIGMA, "adaln_single.emb.timestep_embedder.linear_1", Role.TIME_EMBEDDING),
    (published.PIXART_SIGMA, "caption_projection.linear_2", Role.TEXT_PROJECTION),
    (published.PIXART_SIGMA, "proj_out", Role.OUTPUT),
    (published.SD3, "time_text_embed.timestep_embedder.linear_1", Role.TIME_EMBEDDING),
    (published.SD3, "time_text_embed.text_embedder.linear_1", Role.TEXT_PROJECTION),
    (published.SD3, "context_embedder", Role.TEXT_PROJECTION),
    (published.SD3, "transformer_blocks.0.norm1_context.linear", Role.MODULATION),
    (published.SD3, "transformer_blocks.0.attn.to_v", Role.SELF_ATTENTION_V),
    (published.SD3, "transformer_blocks.0.attn.add_v_proj", Role.JOINT_ATTENTION_V),
    (published.SD3, "transformer_blocks.0.attn.to_add_out", Role.JOINT_ATTENTION_OUT),
    (published.SD3, "transformer_blocks.0.ff_context.net.2", Role.FEED_FORWARD_OUT),
    (published.FLUX, "x_embedder", Role.INPUT),
    (published.FLUX, "time_text_embed.guidance_embedder.linear_2", Role.TIME_EMBEDDING),
    (published.FLUX, "single_transformer_blocks.0.norm.linear", Role.MODULATION),
    (published.FLUX, "single_transformer_blocks.0.proj_mlp", Role.FEED_FORWARD_IN),
    (published.FLUX, "single_transformer_blocks.0.proj_out", Role.FEED_FORWARD_OUT),
    (published.FLUX, "norm_out.linear", Role.MODULATION),
    (published.SANA, "patch_embed.proj", Role.INPUT),
    (published.SANA, "time_embed.linear", Role.MODULATION),
    (published.SANA, "time_embed.emb.timestep_embedder.linear_1", Role.TIME_EMBEDDING),
    (published.SANA, "transformer_blocks.0.attn1.to_k", Role.SELF_ATTENTION_K),
    (published.SANA, "transformer_blocks.0.attn2.to_out.0", Role.CROSS_ATTENTION_OUT),
    (published.SANA, "transformer_blocks.0.ff.conv_inverted", Role.FEED_FORWARD_IN),
    (published.SANA, "transformer_blocks.0.ff.conv_depth", Role.FEED_FORWARD_MIDDLE),
    (published.SANA, "transformer_blocks.0.ff.conv_point", Role.FEED_FORWARD_OUT),
    (published.HUNYUAN_DIT, "blocks.39.skip_linear", Role.SHORTCUT),
    (published.HUNYUAN_DIT, "blocks.0.norm1.linear", Role.MODULATION),
    (published.HUNYUAN_DIT, "time_extra_emb.pooler.q_proj", Role.TEXT_PROJECTION),
    (published.HUNYUAN_DIT, "time_extra_emb.extra_embedder.linear_1", Role.TIME_EMBEDDING),
    (published.HUNYUAN_DIT, "text_embedder.linear_1", Role.TEXT_PROJECTION),
]


@pytest.mark.parametrize(
    ("architecture", "name", "role"),
    PLACES,
    ids=[f"{architecture.name}:{name}" for architecture, name, _ in PLACES],
)
def test_the_role_of_a_place(architecture: Architecture, name: str, role: Role):
    (layer,) = (layer for layer in layers_of(architecture) if layer.name == name)
    assert layer.role == role


@pytest.mark.parametrize("architecture", published.ALL, ids=lambda a: a.name)
def test_no_layer_of_a_published_architecture_is_other(architecture: Architecture):
    assert [layer.name for layer in layers_of(architecture) if layer.role == Role.OTHER] == []


@pytest.mark.parametrize("architecture", published.ALL, ids=lambda a: a.name)
def test_queries_keys_and_values_come_in_threes(architecture: Architecture):
    roles = Counter(layer.role for layer in layers_of(architecture))
    for kind in ("self", "cross", "joint"):
        q, k, v = (roles[Role(f"{kind}_attention_{part}")] for part in "qkv")
        assert q == k == v


@pytest.mark.parametrize("architecture", published.ALL, ids=lambda a: a.name)
def test_every_denoiser_has_an_input_and_an_output(architecture: Architecture):
    roles = Counter(layer.role for layer in layers_of(architecture))
    assert roles[Role.INPUT] == roles[Role.OUTPUT] == 1


def test_attention_that_reads_text_is_cross_attention_whatever_its_name():
    unet = published.Architecture(
        "only cross-attention",
        "UNet2DConditionModel",
        {**published.SD15.config, "only_cross_attention": True},
    ).build()
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k"
    assert role_of(name, unet) == Role.CROSS_ATTENTION_K


def test_second_attention_among_image_tokens_is_self_attention():
    sd35 = published.Architecture(
        "stable-diffusion-3.5-medium",
        "SD3Transformer2DModel",
        {**published.SD3.config, "dual_attention_layers": (0,)},
    ).build()
    assert role_of("transformer_blocks.0.attn2.to_q", sd35) == Role.SELF_ATTENTION_Q


def test_fused_projections_have_their_own_role():
    unet = published.SD15.build()
    unet.fuse_qkv_projections()
    name = "mid_block.attentions.0.transformer_blocks.0.attn1.to_qkv"
    assert role_of(name, unet) == Role.SELF_ATTENTION_QKV


def test_an_unknown_place_is_other():
    model = nn.ModuleDict({"mystery": nn.Linear(2, 2)})
    assert role_of("mystery", model) == Role.OTHER


def test_an_unknown_name_is_an_error():
    with pytest.raises(AttributeError):
        role_of("no.such.layer", published.SD15.build())
