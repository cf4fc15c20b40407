"""Images and a tiny contrastive model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import pre_tokenizers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

COMMON_DIM = 12


@pytest.fixture(scope="session")
def images() -> npt.NDArray[np.uint8]:
    """uint8 [6, 64, 64, 3]: smooth random pictures."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


@pytest.fixture
def contrastive_folder(tmp_path: Path) -> Path:
    """Holds `image_encoder/` and `text_projection.safetensors`."""
    folder = tmp_path / "contrastive"
    torch.manual_seed(0)
    vision = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=32,
            projection_dim=COMMON_DIM,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=16,
            patch_size=8,
        )
    )
    vision.save_pretrained(folder / "image_encoder")
    save_file({"weight": torch.randn(COMMON_DIM, 8)}, folder / "text_projection.safetensors")
    return folder


@pytest.fixture
def pipeline_folder(tmp_path: Path) -> Path:
    """Holds the text half: `text_encoder/` and `tokenizer/`, byte-level."""
    folder = tmp_path / "pipeline"
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{x}</w>" for x in letters)]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=10)
    tokenizer.save_pretrained(folder / "tokenizer")
    torch.manual_seed(1)
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=8,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=10,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    text.save_pretrained(folder / "text_encoder")
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}', "utf-8")
    return folder
