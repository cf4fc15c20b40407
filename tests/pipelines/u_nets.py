"""Pipelines of Stable Diffusion: text to image, image to image, control images, masks."""

from __future__ import annotations

from typing import Any

import numpy as np
from diffusers import (
    ControlNetModel,
    DDIMScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from PIL import Image

from tests.models.tiny import (
    TEXT_WIDTH,
    smallest_unet,
    tiny_text_encoder,
    tiny_tokenizer,
    tiny_unet,
    tiny_vae,
)
from tests.pipelines.parts import projected_clip
from tests.pipelines.tiny_pipeline import TinyPipeline

SIDE = 16


def picture(seed: int) -> Image.Image:
    """Noise of 16×16 pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def pictures() -> dict[str, Any]:
    return {"image": [picture(0), picture(1)]}


def masked() -> dict[str, Any]:
    """The left half of each is to be painted anew."""
    pixels = np.zeros((SIDE, SIDE), np.uint8)
    pixels[:, : SIDE // 2] = 255
    return {**pictures(), "mask_image": [Image.fromarray(pixels)] * 2}


def components(**others: Any) -> dict[str, Any]:
    """Those of Stable Diffusion."""
    tokenizer = tiny_tokenizer()
    usual = {
        "vae": tiny_vae(),
        "text_encoder": tiny_text_encoder(tokenizer),
        "tokenizer": tokenizer,
        "unet": smallest_unet(),
        "scheduler": DDIMScheduler(steps_offset=1, clip_sample=False),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }
    return {**usual, **others}


def middle_unet(**config: Any) -> UNet2DConditionModel:
    """The smallest one with a middle block, which ControlNets and motion modules need."""
    return smallest_unet(mid_block_type="UNetMidBlock2DCrossAttn", **config)


def stable_diffusion() -> StableDiffusionPipeline:
    return StableDiffusionPipeline(**components(unet=tiny_unet()))


def stable_diffusion_xl(scheduler: Any) -> StableDiffusionXLPipeline:
    """Two text encoders, a pooled text, and sizes for conditions."""
    tokenizer = tiny_tokenizer()
    unet = smallest_unet(
        cross_attention_dim=2 * TEXT_WIDTH,
        transformer_layers_per_block=2,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + TEXT_WIDTH,
    )
    return StableDiffusionXLPipeline(
        vae=tiny_vae(),
        text_encoder=projected_clip(),
        text_encoder_2=projected_clip(seed=1),
        tokenizer=tokenizer,
        tokenizer_2=tiny_tokenizer(),
        unet=unet,
        scheduler=scheduler,
    )


def sdxl_base() -> StableDiffusionXLPipeline:
    return stable_diffusion_xl(EulerDiscreteScheduler(steps_offset=1))


def sdxl_turbo() -> StableDiffusionXLPipeline:
    return stable_diffusion_xl(EulerAncestralDiscreteScheduler(timestep_spacing="trailing"))


def control_net() -> StableDiffusionControlNetPipeline:
    unet = middle_unet()
    net = ControlNetModel.from_unet(
        unet, conditioning_embedding_out_channels=(4, 8), conditioning_channels=3
    )
    # What a ControlNet adds begins with zero.
    for layer in (*net.controlnet_down_blocks, net.controlnet_mid_block):
        layer.reset_parameters()
    return StableDiffusionControlNetPipeline(**components(unet=unet, controlnet=net))


def image_to_image() -> StableDiffusionImg2ImgPipeline:
    return StableDiffusionImg2ImgPipeline(**components())


def inpainting() -> StableDiffusionInpaintPipeline:
    return StableDiffusionInpaintPipeline(**components(unet=smallest_unet(in_channels=9)))


GUIDED = {"num_inference_steps": 2, "guidance_scale": 3.0}

U_NETS = (
    TinyPipeline("Stable Diffusion 1.5", stable_diffusion, GUIDED),
    TinyPipeline("SDXL base", sdxl_base, GUIDED),
    TinyPipeline("SDXL-Turbo", sdxl_turbo, {"num_inference_steps": 1, "guidance_scale": 0.0}),
    TinyPipeline("ControlNet", control_net, GUIDED, pictures),
    TinyPipeline("Image to image", image_to_image, {**GUIDED, "strength": 1.0}, pictures),
    TinyPipeline(
        "Inpainting, 9 channels", inpainting, {**GUIDED, "height": SIDE, "width": SIDE}, masked
    ),
)
