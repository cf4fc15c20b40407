"""The denoisers that are timed: published shapes, embedded or random weights, seeded inputs."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import torch
from huggingface_hub import save_torch_state_dict
from torch import nn

from .messages import Inputs

ROOT = Path(__file__).resolve().parents[2]
ZOO = ROOT / "src" / "mezzotint" / "zoo"


@dataclass(frozen=True)
class Denoiser:
    """A shape.

    Attributes:
        title: for readers.
        class_name: in diffusers.
        config: what differs from the class's defaults; empty for embedded weights.
        embedded: folder of the embedded weights, below `zoo`.
        latents: channels, height and width of the sample.
        text: tokens and width of the text embedding.
        extra: further inputs: name, dotted where nested, to shape without the batch.
    """

    title: str
    class_name: str
    latents: tuple[int, int, int]
    text: tuple[int, int]
    config: Mapping[str, Any] = field(default_factory=dict)
    embedded: str = ""
    extra: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


DENOISERS = {
    "emoji-turbo": Denoiser(
        "emoji-turbo's U-Net, 16×16 latents",
        "UNet2DConditionModel",
        (4, 16, 16),
        (16, 256),
        embedded="emoji-turbo/unet",
    ),
    "sd15": Denoiser(
        "Stable Diffusion 1.5's U-Net, random weights, 64×64 latents",
        "UNet2DConditionModel",
        (4, 64, 64),
        (77, 768),
        {"sample_size": 64, "cross_attention_dim": 768},
    ),
    "sdxl": Denoiser(
        "SDXL's U-Net, random weights, 64×64 latents",
        "UNet2DConditionModel",
        (4, 64, 64),
        (77, 2048),
        {
            "sample_size": 64,
            "block_out_channels": [320, 640, 1280],
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            "transformer_layers_per_block": [1, 2, 10],
            "attention_head_dim": [5, 10, 20],
            "cross_attention_dim": 2048,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
            "use_linear_projection": True,
        },
        extra={"added_cond_kwargs.text_embeds": (1280,), "added_cond_kwargs.time_ids": (6,)},
    ),
    "pixart": Denoiser(
        "PixArt-Σ XL-2's transformer, random weights, 64×64 latents",
        "PixArtTransformer2DModel",
        (4, 64, 64),
        (300, 4096),
        {
            "sample_size": 64,
            "num_layers": 28,
            "num_attention_heads": 16,
            "attention_head_dim": 72,
            "in_channels": 4,
            "out_channels": 8,
            "cross_attention_dim": 1152,
            "caption_channels": 4096,
            "patch_size": 2,
            "interpolation_scale": 1,
            "use_additional_conditions": False,
        },
    ),
}

TIME_IDS = (1024.0, 1024.0, 0.0, 0.0, 1024.0, 1024.0)
"""SDXL's original size, crop and target size."""


def inputs(name: str, batch: int, dtype: torch.dtype, device: str, seed: int = 0) -> Inputs:
    """Seeded inputs of one call; the same values whatever the dtype, but for its rounding."""
    denoiser = DENOISERS[name]
    generator = torch.Generator().manual_seed(1_000_003 * seed + batch)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn((batch, *shape), generator=generator).to(device, dtype)

    found: Inputs = {
        "sample": normal(*denoiser.latents),
        "encoder_hidden_states": normal(*denoiser.text),
        "timestep": torch.full((batch,), 500 - 100 * (seed % 5), device=device),
    }
    if denoiser.class_name == "PixArtTransformer2DModel":
        found["hidden_states"] = found.pop("sample")
        found["added_cond_kwargs"] = {"resolution": None, "aspect_ratio": None}
    for path, shape in denoiser.extra.items():
        outer, _, inner = path.rpartition(".")
        value = normal(*shape)
        if inner == "time_ids":
            value = torch.tensor(TIME_IDS).to(device, dtype).repeat(batch, 1)
        found.setdefault(outer, {})[inner] = value
    return found | {"return_dict": False}


def folder_of(name: str, cache: Path) -> Path:
    """The denoiser's folder; random weights are written on first use, in 16 bits."""
    denoiser = DENOISERS[name]
    if denoiser.embedded:
        return ZOO / denoiser.embedded
    folder = cache / "denoisers" / name
    if not (folder / "config.json").is_file():
        write_random(denoiser, folder)
    return folder


def write_random(denoiser: Denoiser, folder: Path) -> None:
    """Normal weights of variance 1 / inputs from a fixed seed: every layer keeps its scale."""
    with torch.device("meta"):
        hollow: nn.Module = getattr(diffusers, denoiser.class_name)(**denoiser.config)
    generator = torch.Generator().manual_seed(0)
    state = {name: _random(name, tensor, generator) for name, tensor in hollow.state_dict().items()}
    temporary = folder.with_name(f".{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_torch_state_dict(
        state,
        temporary,
        filename_pattern="diffusion_pytorch_model{suffix}.safetensors",
        max_shard_size="2GB",
    )
    hollow.save_config(temporary)
    temporary.rename(folder)


def _random(name: str, tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    if tensor.ndim > 1:
        fan_in = math.prod(tensor.shape[1:])
        value = torch.randn(tensor.shape, generator=generator) / math.sqrt(fan_in)
    elif name.endswith("weight"):  # of a norm
        value = torch.ones(tensor.shape)
    else:
        value = torch.randn(tensor.shape, generator=generator) * 0.02
    return value.half()


def parameters_of(folder: Path) -> int:
    """Count of the weights in the folder's safetensors."""
    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        total += sum(math.prod(one["shape"]) for key, one in header.items() if "shape" in one)
    return total
