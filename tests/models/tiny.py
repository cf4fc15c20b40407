"""Tiny random pipelines of stock classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiTTransformer2DModel,
    LCMScheduler,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from tokenizers import pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

TEXT_WIDTH = 32
TEXT_TOKENS = 16


def tiny_tokenizer() -> CLIPTokenizer:
    """Byte-level: every letter is a token, nothing is merged."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{x}</w>" for x in letters)]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=TEXT_TOKENS)


def tiny_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    torch.manual_seed(0)
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=TEXT_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def tiny_vae() -> AutoencoderKL:
    """16×16 pixels to 8×8 latents."""
    torch.manual_seed(1)
    return AutoencoderKL(
        sample_size=16,
        latent_channels=4,
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        norm_num_groups=4,
    )


def tiny_unet() -> UNet2DConditionModel:
    torch.manual_seed(2)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=2,
        norm_num_groups=8,
    )


def smallest_unet(
    *, attention: bool = True, channels: int = 8, **config: Any
) -> UNet2DConditionModel:
    """One block with a shortcut, and with text unless it is left out: each layer costs time."""
    torch.manual_seed(0)
    sizes = {
        "sample_size": 8,
        "block_out_channels": (channels,),
        "down_block_types": ("DownBlock2D",),
        "mid_block_type": None,
        "up_block_types": ("CrossAttnUpBlock2D" if attention else "UpBlock2D",),
        "layers_per_block": 1,
        "cross_attention_dim": TEXT_WIDTH,
        "attention_head_dim": 4,
        "norm_num_groups": 4,
    }
    return UNet2DConditionModel(**{**sizes, **config})


def tiny_pixart() -> PixArtTransformer2DModel:
    torch.manual_seed(3)
    return PixArtTransformer2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=TEXT_WIDTH,
        use_additional_conditions=False,
    )


def tiny_stable_diffusion() -> StableDiffusionPipeline:
    tokenizer = tiny_tokenizer()
    return StableDiffusionPipeline(
        vae=tiny_vae(),
        text_encoder=tiny_text_encoder(tokenizer),
        tokenizer=tokenizer,
        unet=tiny_unet(),
        scheduler=LCMScheduler(steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def tiny_pixart_sigma() -> PixArtSigmaPipeline:
    """PixArt-Sigma with CLIP for a text encoder."""
    tokenizer = tiny_tokenizer()
    return PixArtSigmaPipeline(
        vae=tiny_vae(),
        text_encoder=tiny_text_encoder(tokenizer),
        tokenizer=tokenizer,
        transformer=tiny_pixart(),
        scheduler=DDIMScheduler(),
    )


def write_generation(folder: Path, **fields: object) -> None:
    (folder / "generation.json").write_text(json.dumps(fields))


def save_few_step(folder: Path, unet: UNet2DConditionModel | None = None) -> Path:
    """A few-step Stable Diffusion with 16×16 images, around another U-Net if given, as a folder."""
    pipe = tiny_stable_diffusion()
    if unet is not None:
        pipe.register_modules(unet=unet)
    pipe.save_pretrained(folder)
    write_generation(folder, num_inference_steps=2, guidance_scale=1.0)
    return folder


def tiny_dit(classes: int = 10) -> DiTTransformer2DModel:
    """Conditioned on classes, not on text."""
    torch.manual_seed(4)
    return DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        sample_size=8,
        num_embeds_ada_norm=classes,
    )
