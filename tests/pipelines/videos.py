"""Pipelines that make videos from text."""

from __future__ import annotations

import torch
from diffusers import (
    AnimateDiffPipeline,
    AutoencoderKLLTXVideo,
    AutoencoderKLWan,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    MotionAdapter,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)

from tests.models.tiny import (
    TEXT_TOKENS,
    TEXT_WIDTH,
    tiny_text_encoder,
    tiny_tokenizer,
    tiny_vae,
)
from tests.pipelines import parts
from tests.pipelines.columns import COLUMNS
from tests.pipelines.tiny_pipeline import Refusal, TinyPipeline
from tests.pipelines.u_nets import middle_unet


def wan_transformer(seed: int) -> WanTransformer3DModel:
    torch.manual_seed(seed)
    return WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=16,
        out_channels=16,
        text_dim=TEXT_WIDTH,
        freq_dim=16,
        ffn_dim=32,
        num_layers=1,
        rope_max_seq_len=32,
    )


def wan_vae() -> AutoencoderKLWan:
    """Eight times smaller in height and width, four times in frames."""
    torch.manual_seed(1)
    return AutoencoderKLWan(
        base_dim=3,
        z_dim=16,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
    )


def wan_21() -> WanPipeline:
    return WanPipeline(
        tokenizer=parts.t5_tokenizer(),
        text_encoder=parts.umt5_encoder(),
        vae=wan_vae(),
        scheduler=UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
        transformer=wan_transformer(2),
    )


def wan_22() -> WanPipeline:
    """One transformer for the first, noisier half of the steps, and one for the others."""
    return WanPipeline(
        tokenizer=parts.t5_tokenizer(),
        text_encoder=parts.umt5_encoder(),
        vae=wan_vae(),
        scheduler=UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
        transformer=wan_transformer(2),
        transformer_2=wan_transformer(3),
        boundary_ratio=0.875,
    )


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

TWO_DENOISERS = Refusal(
    r"several denoisers \(transformer, transformer_2\); quantize each as a bare module",
    "It has two denoisers; quantize each as a bare module (`mz.quantize_module`).",
)

VIDEOS = (
    TinyPipeline("Wan 2.1", wan_21, {**SHORT, "num_frames": 5}),
    TinyPipeline(
        "Wan 2.2",
        wan_22,
        {**SHORT, "num_frames": 5},
        refusals=dict.fromkeys(COLUMNS, TWO_DENOISERS),
    ),
    TinyPipeline("LTX-Video", ltx, {**SHORT, "height": 32, "width": 32, "num_frames": 9}),
    TinyPipeline("AnimateDiff", animate_diff, {**GUIDED, "num_frames": 2}),
)
