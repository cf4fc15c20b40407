"""Stable Diffusion 1.x in the layout of its authors: all models in one file, by other names.

The inverse of what diffusers does in `from_single_file`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file
from torch import Tensor

_UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}

_VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}


def write_original(
    pipe: StableDiffusionPipeline, file: Path, dtype: torch.dtype = torch.float32
) -> None:
    """Write the U-Net, the VAE and the text encoder of a pipeline to one safetensors file.

    Args:
        pipe: of Stable Diffusion 1.x, of any sizes.
        file: to write.
        dtype: of the tensors.
    """
    tensors = {name: tensor.to(dtype).contiguous() for name, tensor in original_tensors(pipe)}
    save_file(tensors, file)


def original_tensors(pipe: StableDiffusionPipeline) -> Iterator[tuple[str, Tensor]]:
    """Name in the original layout, and tensor, of every tensor of the three models."""
    layers, blocks = pipe.unet.config.layers_per_block, len(pipe.vae.config.block_out_channels)
    attended = ["Attn" in name for name in pipe.unet.config.up_block_types]
    for name, tensor in pipe.unet.state_dict().items():
        yield f"model.diffusion_model.{_unet_name(name, layers, attended)}", tensor
    for name, tensor in pipe.vae.state_dict().items():
        flat = ".attentions." in name and name.endswith(".weight") and "group_norm" not in name
        # The original has convolutions of one pixel where diffusers has matrices.
        yield (
            f"first_stage_model.{_vae_name(name, blocks)}",
            tensor[..., None, None] if flat else (tensor),
        )
    for name, tensor in pipe.text_encoder.state_dict().items():
        own = name.removeprefix("text_model.")
        yield f"cond_stage_model.transformer.text_model.{own}", tensor


def _unet_name(name: str, layers: int, attended: list[bool]) -> str:
    for ours, original in (
        ("time_embedding.linear_1.", "time_embed.0."),
        ("time_embedding.linear_2.", "time_embed.2."),
        ("conv_in.", "input_blocks.0.0."),
        ("conv_norm_out.", "out.0."),
        ("conv_out.", "out.2."),
    ):
        if name.startswith(ours):
            return name.replace(ours, original, 1)
    if found := re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", name):
        kind, number, rest = found[1], int(found[2]), found[3]
        place = 1 if kind == "attentions" else 2 * number
        return f"middle_block.{place}.{_within(kind, rest)}"
    found = re.match(r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.*)", name)
    assert found is not None, name
    way, block, kind, number, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
    first = (layers + 1) * block
    if kind == "downsamplers":
        return f"input_blocks.{first + layers + 1}.0.{rest.replace('conv', 'op', 1)}"
    if kind == "upsamplers":
        return f"output_blocks.{first + layers}.{2 if attended[block] else 1}.{rest}"
    place = (
        f"input_blocks.{first + number + 1}"
        if way == "down"
        else (f"output_blocks.{first + number}")
    )
    return f"{place}.{0 if kind == 'resnets' else 1}.{_within(kind, rest)}"


def _within(kind: str, rest: str) -> str:
    layer, _, leaf = rest.rpartition(".")
    return f"{_UNET_RESNET[layer]}.{leaf}" if kind == "resnets" else rest


def _vae_name(name: str, blocks: int) -> str:
    name = name.replace("conv_norm_out.", "norm_out.").replace("conv_shortcut.", "nin_shortcut.")
    if found := re.match(r"(.*)\.mid_block\.resnets\.(\d)\.(.*)", name):
        return f"{found[1]}.mid.block_{int(found[2]) + 1}.{found[3]}"
    if found := re.match(r"(.*)\.mid_block\.attentions\.0\.(.*)\.(\w+)", name):
        return f"{found[1]}.mid.attn_1.{_VAE_ATTENTION[found[2]]}.{found[3]}"
    if found := re.match(r"(.*)\.(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.*)", name):
        part, way, block, kind, number, rest = found.groups()
        place = f"{part}.{way}.{int(block) if way == 'down' else blocks - 1 - int(block)}"
        return (
            f"{place}.block.{number}.{rest}"
            if kind == "resnets"
            else (f"{place}.{way}sample.{rest}")
        )
    return name
