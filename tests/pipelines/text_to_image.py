"""Transformers that make images from text."""

from __future__ import annotations

import torch
from diffusers import (
    AuraFlowPipeline,
    AuraFlowTransformer2DModel,
    AutoencoderDC,
    AutoencoderKLQwenImage,
    ChromaPipeline,
    ChromaTransformer2DModel,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    HunyuanDiT2DModel,
    HunyuanDiTPipeline,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    PixArtSigmaPipeline,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    ZImagePipeline,
    ZImageTransformer2DModel,
)

from tests.models.tiny import (
    TEXT_TOKENS,
    TEXT_WIDTH,
    tiny_pixart,
    tiny_text_encoder,
    tiny_tokenizer,
    tiny_vae,
)
from tests.pipelines import parts
from tests.pipelines.tiny_pipeline import Refusal, TinyPipeline


def stable_diffusion_3() -> StableDiffusion3Pipeline:
    """Three text encoders; of 3.5 medium: norms of queries and keys, double attention."""
    torch.manual_seed(2)
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=8,
        caption_projection_dim=16,
        joint_attention_dim=4 * TEXT_WIDTH,
        pooled_projection_dim=2 * TEXT_WIDTH,
        pos_embed_max_size=8,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=parts.image_vae(4),
        text_encoder=parts.projected_clip(),
        tokenizer=tiny_tokenizer(),
        text_encoder_2=parts.projected_clip(seed=1),
        tokenizer_2=tiny_tokenizer(),
        text_encoder_3=parts.t5_encoder(4 * TEXT_WIDTH),
        tokenizer_3=parts.t5_tokenizer(),
    )


FLUX_SIZES = {
    "in_channels": 16,
    "num_layers": 1,
    "num_single_layers": 1,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "joint_attention_dim": TEXT_WIDTH,
    "axes_dims_rope": (4, 4, 8),
}


def flux() -> FluxPipeline:
    torch.manual_seed(2)
    tokenizer = tiny_tokenizer()
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=parts.image_vae(4),
        text_encoder=tiny_text_encoder(tokenizer),
        tokenizer=tokenizer,
        text_encoder_2=parts.t5_encoder(),
        tokenizer_2=parts.t5_tokenizer(),
        transformer=FluxTransformer2DModel(
            pooled_projection_dim=TEXT_WIDTH, guidance_embeds=True, **FLUX_SIZES
        ),
    )


def chroma() -> ChromaPipeline:
    torch.manual_seed(2)
    transformer = ChromaTransformer2DModel(
        approximator_num_channels=16,
        approximator_hidden_dim=16,
        approximator_layers=1,
        **FLUX_SIZES,
    )
    return ChromaPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=parts.image_vae(4),
        text_encoder=parts.t5_encoder(),
        tokenizer=parts.t5_tokenizer(),
        transformer=transformer,
    )


def pixart_sigma() -> PixArtSigmaPipeline:
    return PixArtSigmaPipeline(
        tokenizer=parts.t5_tokenizer(),
        text_encoder=parts.t5_encoder(),
        vae=tiny_vae(),
        transformer=tiny_pixart(),
        scheduler=DPMSolverMultistepScheduler(),
    )


def sana() -> SanaPipeline:
    torch.manual_seed(2)
    transformer = SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_attention_heads=2,
        attention_head_dim=8,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=TEXT_WIDTH,
        sample_size=8,
    )
    block = {
        "block_types": ("ResBlock", "EfficientViTBlock"),
        "block_out_channels": (8, 8),
        "layers_per_block": (1, 1),
        "qkv_multiscales": ((), (5,)),
    }
    vae = AutoencoderDC(
        latent_channels=4,
        attention_head_dim=2,
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        scaling_factor=0.4,
        **{
            f"{side}_{name}": each
            for side in ("encoder", "decoder")
            for name, each in block.items()
        },
    )
    return SanaPipeline(
        tokenizer=parts.gemma_tokenizer(),
        text_encoder=parts.gemma_encoder(),
        vae=vae,
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def hunyuan_dit() -> HunyuanDiTPipeline:
    """Text encoders of two kinds; sizes and a style for conditions."""
    torch.manual_seed(2)
    transformer = HunyuanDiT2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=8,
        hidden_size=16,
        cross_attention_dim=TEXT_WIDTH,
        cross_attention_dim_t5=TEXT_WIDTH,
        pooled_projection_dim=8,
    )
    return HunyuanDiTPipeline(
        vae=tiny_vae(),
        text_encoder=parts.bert_encoder(),
        tokenizer=parts.bert_tokenizer(),
        transformer=transformer,
        scheduler=DDPMScheduler(prediction_type="v_prediction"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        text_encoder_2=parts.t5_encoder(),
        tokenizer_2=parts.t5_tokenizer(),
    )


def lumina_2() -> Lumina2Pipeline:
    torch.manual_seed(2)
    transformer = Lumina2Transformer2DModel(
        sample_size=8,
        in_channels=4,
        hidden_size=16,
        num_layers=1,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=16,
        axes_dim_rope=(4, 2, 2),
        axes_lens=(64, 32, 32),
        cap_feat_dim=TEXT_WIDTH,
    )
    return Lumina2Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=parts.image_vae(4),
        text_encoder=parts.gemma_encoder(),
        tokenizer=parts.gemma_tokenizer(),
    )


def z_image() -> ZImagePipeline:
    """Its denoiser takes lists of samples, and returns a list."""
    torch.manual_seed(2)
    transformer = ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=TEXT_WIDTH,
        axes_dims=[8, 4, 4],
        axes_lens=[256, 32, 32],
    )
    return ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=parts.image_vae(4),
        text_encoder=parts.qwen_encoder(),
        tokenizer=parts.qwen_tokenizer(),
        transformer=transformer,
    )


def qwen_image() -> QwenImagePipeline:
    torch.manual_seed(2)
    transformer = QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=1,
        num_attention_heads=2,
        attention_head_dim=16,
        joint_attention_dim=TEXT_WIDTH,
        axes_dims_rope=(8, 4, 4),
    )
    vae = AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )
    return QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae,
        text_encoder=parts.qwen_vl_encoder(),
        tokenizer=parts.qwen_tokenizer(),
        transformer=transformer,
    )


def aura_flow() -> AuraFlowPipeline:
    torch.manual_seed(2)
    transformer = AuraFlowTransformer2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        num_attention_heads=2,
        attention_head_dim=8,
        joint_attention_dim=TEXT_WIDTH,
        caption_projection_dim=16,
        pos_embed_max_size=64,
    )
    return AuraFlowPipeline(
        tokenizer=parts.t5_tokenizer(),
        text_encoder=parts.umt5_encoder(),
        vae=parts.image_vae(4),
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
    )


GUIDED = {"num_inference_steps": 2, "guidance_scale": 3.0, "height": 16, "width": 16}
SHORT = {**GUIDED, "max_sequence_length": TEXT_TOKENS}
LONG = {"max_sequence_length": 48}
OWN_SIZE = {**SHORT, "use_resolution_binning": False, "clean_caption": False}

COMPLEX_NUMBERS = Refusal(
    r"OpenVINO cannot convert it .*; use the torch engine",
    "OpenVINO does not convert rotary embeddings in complex numbers; the torch engine computes it.",
)
LISTS = Refusal(
    r"returns more than one tensor; .* use the torch engine",
    "Its denoiser returns a list with a tensor for each image; the torch engine computes it.",
)

TEXT_TO_IMAGE = (
    TinyPipeline("Stable Diffusion 3.5", stable_diffusion_3, SHORT),
    TinyPipeline("FLUX.1", flux, SHORT),
    TinyPipeline("Chroma", chroma, SHORT),
    TinyPipeline("PixArt-Σ", pixart_sigma, OWN_SIZE),
    TinyPipeline(
        "Sana", sana, {**OWN_SIZE, "height": 32, "width": 32, "complex_human_instruction": None}
    ),
    TinyPipeline(
        "Hunyuan-DiT",
        hunyuan_dit,
        {**GUIDED, "use_resolution_binning": False},
        loaded_whole=("HunyuanDiTAttentionPool",),
    ),
    TinyPipeline(
        "Lumina 2",
        lumina_2,
        {**SHORT, **LONG, "height": 64, "width": 64},
        refusals={"openvino": COMPLEX_NUMBERS},
    ),
    TinyPipeline("Z-Image", z_image, {**SHORT, **LONG}, refusals={"openvino": LISTS}),
    TinyPipeline("Qwen-Image", qwen_image, {"num_inference_steps": 2, "height": 16, "width": 16}),
    TinyPipeline("AuraFlow", aura_flow, SHORT),
)
