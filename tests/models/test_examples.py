"""Example calls: every argument has a shape that the denoiser accepts."""

from functools import partial
from typing import Any

import diffusers
import pytest
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from mezzotint.errors import ModelError
from mezzotint.models import example_call, inventory, trace_graph
from tests.models import tiny

BLOCKS = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
}
TINY_UNET = {
    **BLOCKS,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": 2,
    "cross_attention_dim": 12,
}
HEADS = {"num_attention_heads": 2, "attention_head_dim": 16}

CONDITIONINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "class labels": ("UNet2DConditionModel", {**TINY_UNET, "num_class_embeds": 10}),
    "class timesteps": ("UNet2DConditionModel", {**TINY_UNET, "class_embed_type": "timestep"}),
    "class vectors": (
        "UNet2DConditionModel",
        {
            **TINY_UNET,
            "class_embed_type": "projection",
            "projection_class_embeddings_input_dim": 6,
        },
    ),
    "guidance embedding (LCM)": ("UNet2DConditionModel", {**TINY_UNET, "time_cond_proj_dim": 6}),
    "pooled text and sizes (SDXL)": (
        "UNet2DConditionModel",
        {
            **TINY_UNET,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 4,
            "projection_class_embeddings_input_dim": 32,
        },
    ),
    "image embeddings (Kandinsky 2.2)": (
        "UNet2DConditionModel",
        {
            **TINY_UNET,
            "addition_embed_type": "image",
            "encoder_hid_dim_type": "image_proj",
            "encoder_hid_dim": 20,
        },
    ),
    "text of another width": (
        "UNet2DConditionModel",
        {**TINY_UNET, "encoder_hid_dim_type": "text_proj", "encoder_hid_dim": 20},
    ),
    "unconditional": (
        "UNet2DModel",
        {
            **BLOCKS,
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        },
    ),
    "classes only (DiT)": (
        "DiTTransformer2DModel",
        {**HEADS, "in_channels": 4, "num_layers": 1, "sample_size": 8},
    ),
    "sizes (CogView4)": (
        "CogView4Transformer2DModel",
        {
            **HEADS,
            "num_layers": 1,
            "text_embed_dim": 8,
            "time_embed_dim": 8,
            "condition_dim": 4,
            "sample_size": 8,
            "rope_axes_dim": (8, 8),
        },
    ),
    "text alone (AuraFlow)": (
        "AuraFlowTransformer2DModel",
        {
            **HEADS,
            "sample_size": 8,
            "num_mmdit_layers": 1,
            "num_single_dit_layers": 1,
            "joint_attention_dim": 12,
            "caption_projection_dim": 32,
            "pos_embed_max_size": 64,
        },
    ),
    "packed latents, shapes (Qwen-Image)": (
        "QwenImageTransformer2DModel",
        {
            **HEADS,
            "num_layers": 1,
            "in_channels": 16,
            "joint_attention_dim": 12,
            "axes_dims_rope": (4, 6, 6),
        },
    ),
    "packed latents, no guidance (FLUX schnell)": (
        "FluxTransformer2DModel",
        {
            **HEADS,
            "num_layers": 1,
            "num_single_layers": 1,
            "in_channels": 16,
            "joint_attention_dim": 12,
            "pooled_projection_dim": 8,
            "axes_dims_rope": (4, 6, 6),
        },
    ),
}


def build(name: str) -> nn.Module:
    class_name, config = CONDITIONINGS[name]
    with torch.device("meta"):
        return getattr(diffusers, class_name)(**config).eval()


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", CONDITIONINGS)
def test_every_conditioning_can_be_made_up(name: str, batch: int):
    denoiser = build(name)
    output = example_call(denoiser, batch=batch).run(denoiser)
    assert output.shape[0] == batch


@pytest.mark.parametrize("name", CONDITIONINGS)
def test_an_example_reaches_every_layer(name: str):
    assert all(layer.macs for layer in inventory(build(name)))


@pytest.mark.parametrize("name", CONDITIONINGS)
def test_every_layer_reads_something_that_comes_from_an_argument(name: str):
    nodes = trace_graph(build(name)).nodes
    assert all(node.sources for node in nodes if node.kind != "input")


def test_examples_hold_no_values():
    call = example_call(tiny.tiny_unet())
    assert call.args == ()
    assert all(x.is_meta for x in call.kwargs.values())
    assert call.kwargs["sample"].shape == (1, 4, 8, 8)
    assert call.kwargs["encoder_hidden_states"].shape == (1, 77, tiny.TEXT_WIDTH)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_examples_have_the_denoisers_dtype(dtype: torch.dtype):
    denoiser = tiny.tiny_pixart().to(dtype)
    assert example_call(denoiser).kwargs["hidden_states"].dtype == dtype
    assert all(layer.macs for layer in inventory(denoiser))


def test_a_latent_size_may_be_a_rectangle():
    unet = partial(diffusers.UNet2DConditionModel, **TINY_UNET)
    call = example_call(unet(sample_size=(8, 16)))
    assert call.kwargs["sample"].shape[-2:] == (8, 16)


class Puzzling(ModelMixin, ConfigMixin):
    """Needs an argument that nobody has heard of, and has the layers of `tiny_unet`."""

    @register_to_config
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(3, 3)

    def forward(self, timestep: torch.Tensor, riddle: torch.Tensor) -> torch.Tensor:
        return self.proj(riddle)


def test_an_unknown_argument_is_named():
    with pytest.raises(ModelError, match="Puzzling: cannot make up the argument 'riddle'"):
        example_call(Puzzling())


def test_a_missing_configuration_value_is_named():
    denoiser = build("text alone (AuraFlow)")
    denoiser.register_to_config(in_channels=None)
    with pytest.raises(ModelError, match=r"'hidden_states'.*configuration has no in_channels"):
        example_call(denoiser)


def test_an_unknown_addition_is_named():
    denoiser = build("class labels")
    denoiser.register_to_config(addition_embed_type="image_hint")
    with pytest.raises(ModelError, match=r"'added_cond_kwargs'.*'image_hint'"):
        example_call(denoiser)


def test_layers_are_listed_even_where_no_example_can_be_made():
    (layer,) = inventory(Puzzling())
    assert (layer.name, layer.macs, layer.supported) == ("proj", None, True)
