"""Pipelines that make videos from text."""

from __future__ import annotations

import torch
from diffusers import (
    AnimateDiffPipeline,
    AutoencoderKLLTXVideo,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    MotionAdapter,
    WanPipeline,
)

from tests.models.several import tiny_wan
from tests.models.tiny import (
    TEXT_TOKENS,
    TEXT_WIDTH,
    tiny_text_encoder,
    tiny_tokenizer,
    tiny_vae,
)
from tests.pipelines import parts
from tests.pipelines.tiny_pipeline import Refusal, TinyPipeline
from tests.pipelines.u_nets import middle_unet


def wan_21() -> WanPipeline:
    """Wan 2.2 with its first transformer alone."""
    return WanPipeline(**{**tiny_wan().components, "transformer_2": None})


def ltx() -> LTXPipeline:
    torch.manual_seed(1)
    vae = AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8,) * 4,
        decoder_block_out_channels=(8,) * 4,
        layers_per_block=(1,) * 5,
        decoder_layers_per_block=(1,) * 5,
        spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False),
        patch_size=1,
    )
    torch.manual_seed(2)
    transformer = LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        num_layers=1,
        caption_channels=TEXT_WIDTH,
    )
    return LTXPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae,
        text_encoder=parts.t5_encoder(),
        tokenizer=parts.t5_tokenizer(),
        transformer=transformer,
    )


def animate_diff() -> AnimateDiffPipeline:
    """A U-Net of images, with motion modules between its layers."""
    tokenizer = tiny_tokenizer()
    unet = middle_unet()
    torch.manual_seed(3)
    adapter = MotionAdapter(
        block_out_channels=unet.config.block_out_channels,
        motion_layers_per_block=1,
        motion_num_attention_heads=2,
        motion_norm_num_groups=4,
        use_motion_mid_block=False,
    )
    return AnimateDiffPipeline(
        vae=tiny_vae(),
        text_encoder=tiny_text_encoder(tokenizer),
        tokenizer=tokenizer,
        unet=unet,
        motion_adapter=adapter,
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False, beta_schedule="linear"),
    )


GUIDED = {"num_inference_steps": 2, "guidance_scale": 3.0, "height": 16, "width": 16}
SHORT = {**GUIDED, "max_sequence_length": TEXT_TOKENS}
WAN = {**SHORT, "num_frames": 2}

ONE_RECIPE = Refusal(
    r"recipe 'mixdq' cannot decide transformer and transformer_2 together",
    "Two denoisers under one budget are decided by `auto`; or quantize them one after the other.",
)
ONE_LATENCY = Refusal(
    r"latency: is that of one denoiser",
    "A latency is that of one denoiser; limit the bytes of both.",
)

VIDEOS = (
    TinyPipeline("Wan 2.1", wan_21, WAN),
    TinyPipeline("Wan 2.2", tiny_wan, WAN, refusals={"mixdq": ONE_RECIPE, "latency": ONE_LATENCY}),
    TinyPipeline("LTX-Video", ltx, {**SHORT, "height": 32, "width": 32, "num_frames": 9}),
    TinyPipeline("AnimateDiff", animate_diff, {**GUIDED, "num_frames": 2}),
)
