"""From shipped pipelines back to the folders of their training, so that it can go on."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, PixArtTransformer2DModel, UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
)

from tools.emoji import stages
from tools.emoji.stages import START, Context

SHIPPED: dict[str, tuple[type[nn.Module], str]] = {
    "teacher": (UNet2DConditionModel, "emoji-teacher/unet"),
    # The transformer's own teacher is not shipped: its student is the nearest there is.
    "dit": (PixArtTransformer2DModel, "emoji-dit/transformer"),
}


def start(context: Context, zoo: Path, weights: dict[str, Path]) -> None:
    """Lay out what `zoo` holds as if it had been trained here, in float32.

    `weights` names files that denoisers begin with instead, in the form of the shipped ones.
    """
    shipped = zoo / "emoji-teacher"
    vae = AutoencoderKL.from_pretrained(shipped / "vae", torch_dtype=torch.float32)
    vae.save_pretrained(context.folder("vae") / "model")
    tokenizer = CLIPTokenizer.from_pretrained(shipped / "tokenizer")
    tokenizer.save_pretrained(context.folder("tokenizer"))
    contrastive(zoo).save_pretrained(context.folder("clip") / "model")
    stages.latents(context)
    for stage, (kind, folder) in SHIPPED.items():
        file = weights.get(stage)
        tensors = load_file(file) if file else kind.from_pretrained(zoo / folder).state_dict()
        (context.folder(stage)).mkdir(parents=True, exist_ok=True)
        stages.save(unfolded(context, stage, tensors), context.folder(stage) / START)


def unfolded(context: Context, stage: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A shipped denoiser's weights as they are trained."""
    bare = stages.BUILDERS[stage](context.diffusion)
    bare.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return stages.wrapped(context, bare).unfold().denoiser.state_dict()


def contrastive(zoo: Path) -> CLIPModel:
    """The contrastive model, put together from a pipeline's text encoder and `emoji-clip`."""
    text = CLIPTextModel.from_pretrained(zoo / "emoji-teacher" / "text_encoder").float()
    vision = CLIPVisionModelWithProjection.from_pretrained(zoo / "emoji-clip" / "image_encoder")
    vision = vision.float()
    projection = load_file(zoo / "emoji-clip" / "text_projection.safetensors")["weight"].float()
    config = CLIPConfig(
        text_config=text.config.to_dict(),
        vision_config=vision.config.to_dict(),
        projection_dim=vision.config.projection_dim,
    )
    model = CLIPModel(config)
    model.text_model.load_state_dict(text.state_dict())
    model.vision_model.load_state_dict(vision.vision_model.state_dict())
    model.visual_projection.load_state_dict(vision.visual_projection.state_dict())
    model.text_projection.load_state_dict({"weight": projection})
    return model
