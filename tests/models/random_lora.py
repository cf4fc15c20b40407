"""A LoRA of random values, as diffusers writes one."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file


def save_random_lora(folder: Path, path: Path) -> Path:
    """Write a LoRA of the attention of a pipeline's U-Net to a file."""
    pipe = DiffusionPipeline.from_pretrained(folder)
    torch.manual_seed(0)
    pipe.unet.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_v"]))
    for name, weight in pipe.unet.named_parameters():
        if "lora_B" in name:
            weight.data.normal_()
    state = get_peft_model_state_dict(pipe.unet)
    save_file({f"unet.{name}": each.contiguous() for name, each in state.items()}, path)
    return path
