"""Tiny denoisers, plans of many formats for them, and what their files hold."""

from __future__ import annotations

import itertools
import json
import struct
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import mezzotint as mz
from mezzotint.checkpoint import mark_quantized
from mezzotint.formats import as_bits
from mezzotint.runtime import Calibration, InputRange, pack_module
from tests.models import tiny

WEIGHTS = "diffusion_pytorch_model.safetensors"
PROMPT = "owl"
SPLIT = 16

#: Taken in turn by the layers of `mixed_plan`.
CHOICES = (
    mz.Choice("int3/channel"),
    mz.Choice("uint4/group32", "int8/token"),
    mz.Choice("int8/tensor", "uint8/tensor"),
    mz.Choice("uint2/channel", "int8/tensor"),
    mz.Choice("int4/channel", "int8/token"),
    mz.Choice(),
)


def plan_of(model: nn.Module, *choices: mz.Choice) -> mz.Plan:
    """The choices in turn, layer after layer."""
    names = mz.uniform_plan(model, weight_bits=8)
    return mz.Plan(dict(zip(names, itertools.cycle(choices), strict=False)))


def mixed_plan(model: nn.Module) -> mz.Plan:
    return plan_of(model, *CHOICES)


def structured_plan(model: nn.Module, *choices: mz.Choice, checked: bool = True) -> mz.Plan:
    """The choices in turn: text layers with a constant token, shortcuts split after 16 channels."""

    def structured(name: str, choice: mz.Choice) -> mz.Choice:
        if name.endswith(("attn2.to_k", "attn2.to_v")):
            return choice.with_structures(mz.ConstantTokens(1, checked))
        if name.endswith("conv_shortcut") and model.get_submodule(name).in_channels > SPLIT:
            return choice.with_structures(mz.SplitInput(SPLIT))
        return choice

    plan = plan_of(model, *choices)
    return mz.Plan({name: structured(name, choice) for name, choice in plan.choices.items()})


def calibration_for(plan: mz.Plan, model: nn.Module) -> Calibration:
    """Made-up calibration for whatever needs any."""
    ranges = {n: (InputRange(-8.0, 8.0),) * choice.parts for n, choice in plan.choices.items()}
    tensors = {
        name: constants_of(model.get_submodule(name))
        for name, choice in plan.choices.items()
        if any(isinstance(each, mz.ConstantTokens) for each in choice.structures)
    }
    return Calibration(input_ranges=ranges, tensors=tensors)


def constants_of(layer: nn.Linear) -> dict[str, Tensor]:
    """Made-up outputs of a first token, and the token that `run` begins a text with."""
    known = text()[0, :1].to(torch.bfloat16)
    return {
        "constant": as_bits(torch.full((1, layer.out_features), 0.1)),
        "known_input": as_bits(known),
    }


def packed_unet(*choices: mz.Choice) -> UNet2DConditionModel:
    """A tiny UNet, packed in memory after the choices."""
    model = tiny.tiny_unet().eval()
    return packed_after(plan_of(model, *(choices or CHOICES)), model)


def structured_unet(*choices: mz.Choice) -> UNet2DConditionModel:
    """The same, with constant tokens and splits wherever MixDQ has them."""
    model = tiny.tiny_unet().eval()
    return packed_after(structured_plan(model, *(choices or CHOICES[:-1])), model)


def packed_after(plan: mz.Plan, model: UNet2DConditionModel) -> UNet2DConditionModel:
    pack_module(model, plan, calibration_for(plan, model))
    mark_quantized(model, plan)
    return model


@torch.no_grad()
def run(model: UNet2DConditionModel, dtype: torch.dtype = torch.float32) -> Tensor:
    """Its prediction for one noisy latent."""
    noise = torch.Generator().manual_seed(0)
    latent = torch.randn(1, 4, 8, 8, generator=noise).to(dtype)
    return model(latent, torch.tensor(500), text().to(dtype), return_dict=False)[0]


def text() -> Tensor:
    """The embedding of a text, such as it is."""
    return torch.randn(1, 5, tiny.TEXT_WIDTH, generator=torch.Generator().manual_seed(1))


def integers(model: nn.Module) -> dict[str, Tensor]:
    """Codes, scales and zero points: every integer tensor of the state."""
    return {n: t for n, t in model.state_dict().items() if not t.is_floating_point()}


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    """Equal names, dtypes and bits."""
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype and torch.equal(left[name], right[name])
        for name in left
    )


def tensor_bytes(path: Path) -> int:
    """Bytes of a safetensors file behind its header."""
    with path.open("rb") as file:
        (header,) = struct.unpack("<Q", file.read(8))
    return path.stat().st_size - 8 - header


def rewrite(path: Path, **changes: Tensor | None) -> None:
    """Put tensors into a safetensors file, or take them out (None)."""
    tensors = load_file(path) | changes
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, path)


def edit_config(folder: Path, edit) -> None:
    """Change the plan in a component's config.json."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    edit(config["quantization_config"])
    path.write_text(json.dumps(config))
