"""A tiny random pipeline that is made of two: text to embedding, and embedding to image."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import KandinskyV22CombinedPipeline, PriorTransformer, UnCLIPScheduler
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from tests.models import tiny
from tests.pipelines.without_text import kandinsky


def kandinsky_combined() -> KandinskyV22CombinedPipeline:
    """Kandinsky 2.2: a prior and a decoder, each with a denoiser."""
    decoder, tokenizer, width = kandinsky(), tiny.tiny_tokenizer(), tiny.TEXT_WIDTH
    torch.manual_seed(9)
    prior = PriorTransformer(
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        embedding_dim=width,
        num_embeddings=tokenizer.model_max_length,
        additional_embeddings=4,
    )
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=16,
        projection_dim=width,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    vision = CLIPVisionConfig(
        hidden_size=8,
        intermediate_size=16,
        projection_dim=width,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
    )
    return KandinskyV22CombinedPipeline(
        unet=decoder.unet,
        scheduler=decoder.scheduler,
        movq=decoder.movq,
        prior_prior=prior.eval(),
        prior_image_encoder=CLIPVisionModelWithProjection(vision).eval(),
        prior_text_encoder=CLIPTextModelWithProjection(text).eval(),
        prior_tokenizer=tokenizer,
        prior_scheduler=UnCLIPScheduler(
            variance_type="fixed_small_log", prediction_type="sample", clip_sample_range=5.0
        ),
        prior_image_processor=CLIPImageProcessor(crop_size=16, size={"shortest_edge": 16}),
    )


def save_kandinsky(folder: Path) -> Path:
    """The same as a folder, with 16×16 pixels in a few steps."""
    kandinsky_combined().save_pretrained(folder)
    tiny.write_generation(
        folder, num_inference_steps=2, prior_num_inference_steps=2, height=16, width=16
    )
    return folder
