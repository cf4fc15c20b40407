"""Pipelines that make images from something else than text, or from nothing."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DiTPipeline,
    KandinskyV22Pipeline,
    UNet2DConditionModel,
    UNet2DModel,
    VQModel,
)

from tests.models.tiny import TEXT_WIDTH, tiny_dit, tiny_vae
from tests.pipelines.tiny_pipeline import TinyPipeline


def dit() -> DiTPipeline:
    return DiTPipeline(transformer=tiny_dit(1000), vae=tiny_vae(), scheduler=DDIMScheduler())


def ddpm() -> DDPMPipeline:
    torch.manual_seed(2)
    unet = UNet2DModel(
        sample_size=8,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=8,
        norm_num_groups=4,
    )
    return DDPMPipeline(unet=unet, scheduler=DDIMScheduler())


def kandinsky() -> KandinskyV22Pipeline:
    """The decoder, which is given embeddings of images by a pipeline of its own."""
    torch.manual_seed(2)
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=8,
        block_out_channels=(8, 16),
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=4,
        cross_attention_dim=16,
        resnet_time_scale_shift="scale_shift",
        addition_embed_type="image",
        encoder_hid_dim=TEXT_WIDTH,
        encoder_hid_dim_type="image_proj",
    )
    torch.manual_seed(1)
    movq = VQModel(
        block_out_channels=(32, 32),
        down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
        up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
        latent_channels=4,
        norm_num_groups=8,
        norm_type="spatial",
        num_vq_embeddings=12,
        vq_embed_dim=4,
    )
    scheduler = DDPMScheduler(
        beta_schedule="linear",
        variance_type="learned_range",
        prediction_type="epsilon",
        thresholding=False,
        clip_sample=False,
    )
    return KandinskyV22Pipeline(unet=unet, scheduler=scheduler, movq=movq)


def image_embeddings() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    wanted, unwanted = torch.randn(2, 2, TEXT_WIDTH, generator=generator)
    return {"image_embeds": wanted, "negative_image_embeds": unwanted}


GUIDED = {"num_inference_steps": 2, "guidance_scale": 3.0}
SIZE = {"height": 16, "width": 16}

WITHOUT_TEXT = (
    TinyPipeline("Kandinsky 2.2", kandinsky, {**GUIDED, **SIZE}, image_embeddings, prompts=()),
    TinyPipeline("DiT", dit, GUIDED, lambda: {"class_labels": [3, 5]}, prompts=()),
    # diffusers turns its images into arrays, of which there are none in bfloat16.
    TinyPipeline("DDPM", ddpm, {"num_inference_steps": 2}, prompts=(), half=torch.float16),
)
