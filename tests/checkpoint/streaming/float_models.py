"""Models on disk, large and small, and what a fresh process makes of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
from diffusers import PixArtTransformer2DModel
from diffusers.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file

WEIGHTS = SAFETENSORS_WEIGHTS_NAME


def save_pixart(folder: Path, *, layers: int, heads: int) -> Path:
    """A PixArt transformer of random weights: 64·heads wide, float32."""
    torch.manual_seed(0)
    PixArtTransformer2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        num_layers=layers,
        num_attention_heads=heads,
        attention_head_dim=64,
        cross_attention_dim=64 * heads,
        caption_channels=32,
        use_additional_conditions=False,
    ).save_pretrained(folder)
    return folder


def stored(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a model's safetensors files."""
    tensors: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(file)
    return tensors


def python(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a script in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
