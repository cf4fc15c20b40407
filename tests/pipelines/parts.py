"""Tokenizers, text encoders and autoencoders of tiny pipelines, made without any download."""

from __future__ import annotations

import string

import torch
from diffusers import AutoencoderKL
from tokenizers import pre_tokenizers
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizer,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
    UMT5Config,
    UMT5EncoderModel,
)

from tests.models.tiny import TEXT_TOKENS, TEXT_WIDTH, tiny_tokenizer

LETTERS = tuple(string.ascii_lowercase)

CHAT = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
"""A chat template without any special token."""


def t5_tokenizer() -> T5Tokenizer:
    """Every lower-case letter is a token."""
    special = [(token, 0.0) for token in ("<pad>", "</s>", "<unk>")]
    letters = [(token, -2.0) for token in ("▁", *LETTERS)]
    return T5Tokenizer([*special, *letters], extra_ids=0, model_max_length=TEXT_TOKENS)


def gemma_tokenizer() -> GemmaTokenizer:
    """Every lower-case letter is a token."""
    tokens = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *LETTERS)
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return GemmaTokenizer(vocabulary, [], model_max_length=64)


def qwen_tokenizer() -> Qwen2Tokenizer:
    """Byte-level: every letter is a token, nothing is merged."""
    tokens = ("<|endoftext|>", *sorted(pre_tokenizers.ByteLevel.alphabet()))
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return Qwen2Tokenizer(vocabulary, [], chat_template=CHAT, model_max_length=1024)


def bert_tokenizer() -> BertTokenizer:
    """Every lower-case letter is a token."""
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    tokens = (*special, *LETTERS, *(f"##{letter}" for letter in LETTERS))
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return BertTokenizer(vocabulary, model_max_length=TEXT_TOKENS)


def projected_clip(seed: int = 0) -> CLIPTextModelWithProjection:
    """A CLIP text encoder with a pooled output of `TEXT_WIDTH`."""
    tokenizer = tiny_tokenizer()
    torch.manual_seed(seed)
    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=TEXT_WIDTH,
            projection_dim=TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=TEXT_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


T5_SIZES = {
    "d_model": TEXT_WIDTH,
    "d_kv": 16,
    "d_ff": TEXT_WIDTH,
    "num_layers": 1,
    "num_heads": 2,
    "feed_forward_proj": "gated-gelu",
}

DECODER_SIZES = {
    "hidden_size": TEXT_WIDTH,
    "intermediate_size": TEXT_WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


def t5_encoder(width: int = TEXT_WIDTH) -> T5EncoderModel:
    torch.manual_seed(0)
    config = T5Config(vocab_size=len(t5_tokenizer()), **{**T5_SIZES, "d_model": width})
    return T5EncoderModel(config)


def umt5_encoder() -> UMT5EncoderModel:
    torch.manual_seed(0)
    return UMT5EncoderModel(UMT5Config(vocab_size=len(t5_tokenizer()), **T5_SIZES))


def gemma_encoder() -> Gemma2Model:
    torch.manual_seed(0)
    sizes = {**DECODER_SIZES, "head_dim": 16}
    return Gemma2Model(Gemma2Config(vocab_size=len(gemma_tokenizer()), **sizes))


def qwen_encoder() -> Qwen3Model:
    torch.manual_seed(0)
    sizes = {**DECODER_SIZES, "head_dim": 16}
    return Qwen3Model(Qwen3Config(vocab_size=len(qwen_tokenizer()), **sizes))


def qwen_vl_encoder() -> Qwen2_5_VLForConditionalGeneration:
    torch.manual_seed(0)
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
    text = {"vocab_size": len(qwen_tokenizer()), "rope_parameters": rope, **DECODER_SIZES}
    vision = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "out_hidden_size": TEXT_WIDTH,
        "fullatt_block_indexes": [0],
    }
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(text_config=text, vision_config=vision)
    )


def bert_encoder() -> BertModel:
    torch.manual_seed(0)
    return BertModel(
        BertConfig(
            vocab_size=len(bert_tokenizer()),
            hidden_size=TEXT_WIDTH,
            intermediate_size=TEXT_WIDTH,
            num_hidden_layers=1,
            num_attention_heads=2,
        )
    )


def image_vae(channels: int) -> AutoencoderKL:
    """16×16 pixels to 8×8 latents of so many channels, as flow models have them."""
    torch.manual_seed(1)
    return AutoencoderKL(
        sample_size=16,
        latent_channels=channels,
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        norm_num_groups=4,
        use_quant_conv=False,
        use_post_quant_conv=False,
        scaling_factor=1.5,
        shift_factor=0.06,
    )
