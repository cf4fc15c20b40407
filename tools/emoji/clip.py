"""The contrastive pair: causal text encoder and small image encoder."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, cross_entropy, interpolate
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer, CLIPVisionConfig

from tools.emoji.config import Preset, TextShape
from tools.emoji.data import Corpus
from tools.emoji.text import constrain_outlier, text_config, tokenize
from tools.emoji.training import Trainer


def build(shape: TextShape, tokenizer: CLIPTokenizer) -> CLIPModel:
    """A CLIPModel: 4-layer causal text tower, 4-layer ViT with 8×8 patches of 64×64 images."""
    vision = CLIPVisionConfig(
        hidden_size=192,
        intermediate_size=768,
        projection_dim=shape.width,
        num_hidden_layers=4,
        num_attention_heads=6,
        image_size=64,
        patch_size=8,
    )
    text = text_config(shape, tokenizer)
    return CLIPModel(
        CLIPConfig(
            text_config=text.to_dict(),
            vision_config=vision.to_dict(),
            projection_dim=shape.width,
        )
    )


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Small shifts, blur and noise: what generated images differ by, and captions ignore."""
    shift = torch.randint(-4, 5, (2,), generator=generator).tolist()
    images = images.roll(shift, (-2, -1))
    blurred = interpolate(avg_pool2d(images, 2), scale_factor=2, mode="bilinear")
    amount = torch.rand(len(images), 1, 1, 1, generator=generator)
    noise = torch.randn(images.shape, generator=generator)
    strength = 0.15 * torch.rand(len(images), 1, 1, 1, generator=generator)
    return images.lerp(blurred, amount) + strength * noise


def train(
    corpus: Corpus, tokenizer: CLIPTokenizer, shape: TextShape, preset: Preset, directory: Path
) -> CLIPModel:
    """Symmetric InfoNCE on the training split; returns the averaged model."""
    torch.manual_seed(preset.clip.seed)
    model = build(shape, tokenizer).to(preset.device)
    constrain_outlier(model.text_model, shape)
    ids, _ = tokenize(tokenizer, corpus.captions)
    rows = torch.from_numpy(corpus.rows(train=True))

    def loss(generator: torch.Generator) -> Tensor:
        chosen = rows[torch.randperm(len(rows), generator=generator)[: preset.clip.batch]]
        images = augment(corpus.pixels(chosen), generator).to(preset.device)
        output = model(input_ids=ids[chosen].to(preset.device), pixel_values=images)
        logits = output.logits_per_text.float()
        target = torch.arange(len(chosen), device=logits.device)
        return 0.5 * (cross_entropy(logits, target) + cross_entropy(logits.T, target))

    def constrain() -> None:
        constrain_outlier(model.text_model, shape)
        model.logit_scale.data.clamp_(max=4.6)

    average = Trainer(model, preset.clip, directory, constrain).fit(loss)
    assert isinstance(average, CLIPModel)
    constrain_outlier(average.text_model, shape)
    return average
