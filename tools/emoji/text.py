"""Tokenizer and causal text encoder with CLIP's start-token outlier built in."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from tools.emoji.config import TextShape

START, END = "<|startoftext|>", "<|endoftext|>"


def train_tokenizer(captions: list[str], shape: TextShape, directory: Path) -> CLIPTokenizer:
    """Byte-pair encoding in CLIP's file layout, learned from the captions."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=END))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Punctuation(),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=shape.vocabulary,
        special_tokens=[START, END],
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
    )
    tokenizer.train_from_iterator(captions, trainer)
    learned = json.loads(tokenizer.to_str())["model"]
    directory.mkdir(parents=True, exist_ok=True)
    merges = [tuple(merge) for merge in learned["merges"]]
    result = CLIPTokenizer(vocab=learned["vocab"], merges=merges, model_max_length=shape.length)
    result.save_pretrained(directory)
    return result


def text_config(shape: TextShape, tokenizer: CLIPTokenizer) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.width,
        intermediate_size=4 * shape.width,
        projection_dim=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        max_position_embeddings=shape.length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


@torch.no_grad()
def constrain_outlier(model: CLIPTextModel, shape: TextShape) -> None:
    """Keep `outlier_dims` of the residual stream for token 0 alone; call after each update.

    Every write into the residual stream is made zero there and zero-mean elsewhere (LayerNorm
    removes the mean anyway), so ordinary tokens leave the last LayerNorm with exactly 0 in these
    dimensions. The start token holds ±1 there; LayerNorm turns that into ±sqrt(width/4), and the
    fixed gain into a constant about 80 times the largest entry of any other token.
    """
    dims = list(shape.outlier_dims)
    others = torch.ones(shape.width, dtype=torch.bool)
    others[dims] = False

    def clean(writes: Tensor, dim: int) -> None:
        rows = writes.movedim(dim, -1)
        rows[..., others] -= rows[..., others].mean(-1, keepdim=True)
        rows[..., dims] = 0.0

    clean(model.embeddings.token_embedding.weight, 1)
    clean(model.embeddings.position_embedding.weight, 1)
    for layer in model.encoder.layers:
        for linear in (layer.self_attn.out_proj, layer.mlp.fc2):
            assert isinstance(linear, nn.Linear)
            clean(linear.weight, 0)
            clean(linear.bias, 0)
    signs = torch.tensor([1.0, 1.0, -1.0, -1.0], device=model.device)
    model.embeddings.token_embedding.weight[model.config.bos_token_id, dims] = 20.0 * signs
    model.final_layer_norm.weight[dims] = shape.outlier_gain
    model.final_layer_norm.bias[dims] = 0.0


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> tuple[Tensor, Tensor]:
    """Ids and mask, int64 [n, length], padded as the pipelines pad."""
    batch = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
    return batch["input_ids"], batch["attention_mask"]


@torch.no_grad()
def embed(model: CLIPTextModel, ids: Tensor, device: str) -> Tensor:
    """Last hidden states, float32 [n, length, width]."""
    model = model.to(device).eval()
    return torch.cat([model(part.to(device)).last_hidden_state.cpu() for part in ids.split(512)])


def outlier_ratio(hidden: Tensor) -> float:
    """max|token 0| over the mean over other tokens of max|token|."""
    peaks = hidden.abs().amax(-1)
    return float(peaks[:, 0].max() / peaks[:, 1:].mean())
