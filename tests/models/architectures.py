"""The published configurations of well-known denoisers, to be built on the meta device.

Each is what the `config.json` of the named repository's denoiser says, less its defaults.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from torch import nn

from mezzotint.models import (
    Graph,
    Layer,
    WeightGraph,
    joined_inputs,
    layers_in,
    trace_graph,
    weight_graph,
)


@dataclass(frozen=True, eq=False)
class Architecture:
    """A denoiser class and its published configuration."""

    name: str
    class_name: str
    config: Mapping[str, Any]

    def build(self) -> nn.Module:
        """An instance without storage: every parameter lies on the meta device."""
        with torch.device("meta"):
            return getattr(diffusers, self.class_name)(**self.config).eval()


SD15 = Architecture(
    "stable-diffusion-v1-5",
    "UNet2DConditionModel",
    {
        "sample_size": 64,
        "block_out_channels": (320, 640, 1280, 1280),
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
    },
)

SDXL = Architecture(
    "stable-diffusion-xl-base-1.0",
    "UNet2DConditionModel",
    {
        "sample_size": 128,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
)

PIXART_SIGMA = Architecture(
    "PixArt-Sigma-XL-2-1024-MS",
    "PixArtTransformer2DModel",
    {
        "sample_size": 128,
        "num_attention_heads": 16,
        "attention_head_dim": 72,
        "num_layers": 28,
        "in_channels": 4,
        "out_channels": 8,
        "cross_attention_dim": 1152,
        "caption_channels": 4096,
        "interpolation_scale": 2,
        "use_additional_conditions": False,
    },
)

PIXART_ALPHA = Architecture(
    "PixArt-XL-2-1024-MS",
    "PixArtTransformer2DModel",
    {**PIXART_SIGMA.config, "use_additional_conditions": True},
)

PIXART_ALPHA_512 = Architecture(
    "PixArt-XL-2-512x512",
    "PixArtTransformer2DModel",
    {
        **PIXART_SIGMA.config,
        "sample_size": 64,
        "interpolation_scale": 1,
        "use_additional_conditions": False,
    },
)

SD3 = Architecture(
    "stable-diffusion-3-medium",
    "SD3Transformer2DModel",
    {
        "sample_size": 128,
        "num_layers": 24,
        "num_attention_heads": 24,
        "attention_head_dim": 64,
        "joint_attention_dim": 4096,
        "caption_projection_dim": 1536,
        "pooled_projection_dim": 2048,
        "pos_embed_max_size": 192,
    },
)

FLUX = Architecture(
    "FLUX.1-dev",
    "FluxTransformer2DModel",
    {
        "in_channels": 64,
        "num_layers": 19,
        "num_single_layers": 38,
        "num_attention_heads": 24,
        "attention_head_dim": 128,
        "joint_attention_dim": 4096,
        "pooled_projection_dim": 768,
        "guidance_embeds": True,
    },
)

SANA = Architecture(
    "Sana_1600M_1024px",
    "SanaTransformer2DModel",
    {
        "sample_size": 32,
        "in_channels": 32,
        "out_channels": 32,
        "num_layers": 20,
        "num_attention_heads": 70,
        "attention_head_dim": 32,
        "num_cross_attention_heads": 20,
        "cross_attention_head_dim": 112,
        "cross_attention_dim": 2240,
        "caption_channels": 2304,
        "mlp_ratio": 2.5,
    },
)

HUNYUAN_DIT = Architecture(
    "HunyuanDiT-v1.2",
    "HunyuanDiT2DModel",
    {
        "sample_size": 128,
        "in_channels": 4,
        "patch_size": 2,
        "num_layers": 40,
        "num_attention_heads": 16,
        "attention_head_dim": 88,
        "hidden_size": 1408,
        "mlp_ratio": 4.3637,
        "cross_attention_dim": 1024,
        "cross_attention_dim_t5": 2048,
        "pooled_projection_dim": 1024,
        "text_len": 77,
        "text_len_t5": 256,
        "activation_fn": "gelu-approximate",
        "use_style_cond_and_image_meta_size": False,
    },
)

HUNYUAN_DIT_STYLED = Architecture(
    "HunyuanDiT-v1.1",
    "HunyuanDiT2DModel",
    {**HUNYUAN_DIT.config, "use_style_cond_and_image_meta_size": True},
)

DIT = Architecture(
    "DiT-XL-2-256",
    "DiTTransformer2DModel",
    {
        "sample_size": 32,
        "num_layers": 28,
        "num_attention_heads": 16,
        "attention_head_dim": 72,
        "in_channels": 4,
        "out_channels": 8,
        "num_embeds_ada_norm": 1000,
    },
)

ALL = (SD15, SDXL, PIXART_SIGMA, PIXART_ALPHA, SD3, FLUX, SANA, HUNYUAN_DIT, HUNYUAN_DIT_STYLED)


@functools.cache
def graph_of(architecture: Architecture) -> Graph:
    """The graph of its example call, traced once."""
    return trace_graph(architecture.build())


@functools.cache
def weight_graph_of(architecture: Architecture) -> WeightGraph:
    """The graph of its weights, made once; layers after skip connections are two halves each.

    These are the shortcuts of U-Nets, and the layers that take a skip connection into a transformer
    (past a norm, which joined inputs are not).
    """
    graph = graph_of(architecture)
    splits = joined_inputs(graph)
    for node in graph.runs:
        if node.name.endswith(".skip_linear"):
            splits[node.name] = graph.nodes[node.sources[0]].inputs[0].shape[-1]
    shortcuts = {n: c for n, c in splits.items() if n.endswith((".conv_shortcut", ".skip_linear"))}
    return weight_graph(architecture.build(), graph, shortcuts)


@functools.cache
def layers_of(architecture: Architecture) -> tuple[Layer, ...]:
    """Its inventory, taken once."""
    return layers_in(architecture.build(), graph_of(architecture))


def by_name(mapping: dict[Architecture, object]) -> dict[str, object]:
    """Expected values by architecture, as arguments of `parametrize`."""
    return {"argvalues": list(mapping.items()), "ids": [a.name for a in mapping]}
