"""From finished trainings to the ordinary diffusers folders that the package ships."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    DiffusionPipeline,
    PixArtSigmaPipeline,
    StableDiffusionPipeline,
)
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPModel, CLIPTextModel, CLIPVisionModelWithProjection

from tools.emoji import denoiser, stages
from tools.emoji.stages import Context

SHARD = "15MB"
PIXART_ARGUMENTS = {
    "max_sequence_length": 16,
    "use_resolution_binning": False,
    "clean_caption": False,
}


def shared_parts(context: Context) -> dict[str, Any]:
    """VAE, tokenizer and text encoder, the same in every pipeline."""
    _, factor = stages.latents(context)
    vae = stages.finished_vae(context)
    vae.register_to_config(scaling_factor=factor)
    contrastive = CLIPModel.from_pretrained(context.folder("clip") / "model")
    text_encoder = CLIPTextModel(contrastive.config.text_config)
    text_encoder.load_state_dict(contrastive.text_model.state_dict())
    return {"vae": vae, "tokenizer": stages.tokenizer(context), "text_encoder": text_encoder}


def unet_pipeline(context: Context, stage: str) -> StableDiffusionPipeline:
    return StableDiffusionPipeline(
        **shared_parts(context),
        unet=stages.trained(context, stage).fold(),
        scheduler=denoiser.scheduler(context.diffusion),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def dit_pipeline(context: Context) -> PixArtSigmaPipeline:
    return PixArtSigmaPipeline(
        **shared_parts(context),
        transformer=stages.trained(context, "dit_turbo").fold(),
        scheduler=denoiser.scheduler(context.diffusion),
    )


def save(
    pipe: DiffusionPipeline, folder: Path, generation: dict[str, Any], context: Context
) -> None:
    """fp16 safetensors in shards under 16 MiB, with generation defaults and domain prompts."""
    shutil.rmtree(folder, ignore_errors=True)
    for component in pipe.components.values():
        if isinstance(component, nn.Module):
            component.half()
    pipe.save_pretrained(folder, max_shard_size=SHARD)
    compute_in_float32(folder / "text_encoder" / "config.json")
    forget_path(folder / "vae" / "config.json")
    # Older transformers read these two instead of tokenizer.json.
    pipe.tokenizer.backend_tokenizer.model.save(str(folder / "tokenizer"))
    (folder / "generation.json").write_text(json.dumps(generation, indent=2) + "\n", "utf-8")
    order = torch.randperm(
        len(context.corpus.captions), generator=torch.Generator().manual_seed(0)
    ).tolist()
    training = [context.corpus.captions[row] for row in order if context.corpus.train[row]]
    (folder / "prompts.txt").write_text("\n".join(training) + "\n", "utf-8")


def compute_in_float32(path: Path) -> None:
    """Name float32 in a transformers config: it computes in that, whatever is stored."""
    config = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(config | {"dtype": "float32"}, indent=2) + "\n", "utf-8")


def forget_path(path: Path) -> None:
    """Drop the folder a component was trained in from its config."""
    config = json.loads(path.read_text("utf-8"))
    config.pop("_name_or_path", None)
    path.write_text(json.dumps(config, indent=2) + "\n", "utf-8")


def export_contrastive(context: Context, folder: Path) -> None:
    """Image encoder and text projection; the text encoder is the pipelines' own."""
    shutil.rmtree(folder, ignore_errors=True)
    model = CLIPModel.from_pretrained(context.folder("clip") / "model").half()
    vision = CLIPVisionModelWithProjection(model.config.vision_config).half()
    vision.vision_model.load_state_dict(model.vision_model.state_dict())
    vision.visual_projection.load_state_dict(model.visual_projection.state_dict())
    vision.save_pretrained(folder / "image_encoder")
    compute_in_float32(folder / "image_encoder" / "config.json")
    projection = {"weight": model.text_projection.weight.detach().contiguous()}
    save_file(projection, folder / "text_projection.safetensors")


def export(context: Context, zoo: Path) -> None:
    """Write every model whose training is finished into `zoo`."""
    steps, turbo = context.diffusion.teacher_steps, context.diffusion.turbo_steps
    guided = {"num_inference_steps": steps, "guidance_scale": context.diffusion.guidance}
    few = {"num_inference_steps": turbo, "guidance_scale": 1.0}
    export_contrastive(context, zoo / "emoji-clip")
    save(unet_pipeline(context, "teacher"), zoo / "emoji-teacher", guided, context)
    save(unet_pipeline(context, "turbo"), zoo / "emoji-turbo", few, context)
    save(dit_pipeline(context), zoo / "emoji-dit", few | PIXART_ARGUMENTS, context)
