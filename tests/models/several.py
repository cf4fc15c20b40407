"""Tiny random pipelines of several denoisers."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLWan,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from transformers import UMT5Config, UMT5EncoderModel

from tests.models import tiny

STEPS = 4


def wan_transformer(seed: int) -> WanTransformer3DModel:
    torch.manual_seed(seed)
    return WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=tiny.TEXT_WIDTH,
        freq_dim=16,
        ffn_dim=32,
        num_layers=1,
        cross_attn_norm=True,
        rope_max_seq_len=32,
    )


def tiny_wan() -> WanPipeline:
    """Wan 2.2: one transformer for the first steps, another for the rest."""
    tokenizer = tiny.tiny_tokenizer()
    torch.manual_seed(6)
    encoder = UMT5EncoderModel(
        UMT5Config(
            vocab_size=len(tokenizer),
            d_model=tiny.TEXT_WIDTH,
            d_kv=8,
            d_ff=32,
            num_layers=1,
            num_heads=2,
        )
    )
    vae = AutoencoderKLWan(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 1],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
        scale_factor_temporal=1,
        scale_factor_spatial=2,
    )
    return WanPipeline(
        tokenizer=tokenizer,
        text_encoder=encoder.eval(),
        vae=vae,
        scheduler=UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
        transformer=wan_transformer(7),
        transformer_2=wan_transformer(8),
        boundary_ratio=0.875,
    )


def save_wan(folder: Path) -> Path:
    """The same as a folder, with 16×16 pixels in a few steps."""
    tiny_wan().save_pretrained(folder)
    tiny.write_generation(
        folder,
        num_inference_steps=STEPS,
        guidance_scale=2.0,
        height=16,
        width=16,
        num_frames=2,
        max_sequence_length=8,
    )
    return folder
