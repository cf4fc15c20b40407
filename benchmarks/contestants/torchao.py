"""torchao: linear layers only; its convolutions stay floating."""

from __future__ import annotations

import importlib.metadata
from typing import Any

import torch
from torch import nn
from torchao import quantization as ao
from torchao.quantization.granularity import PerAxis, PerGroup
from torchao.quantization.quantize_.workflows import Int4PackingFormat

from .messages import Inputs, Loaded, Request
from .process_memory import tensor_bytes
from .torch_floating import load_module, loaded


def load(request: Request, calibration: list[Inputs]) -> Loaded:
    config = config_of(request.options)
    module = load_module(request)
    before = {name: tensor_bytes(layer) for name, layer in linears(module).items()}
    ao.quantize_(module, config)
    held = tensor_bytes(module)
    stored = held
    bits = request.options.get("bits", 8)
    if request.options["way"] == "intx":
        # The codes are held one per byte: count them as if they were packed.
        codes = sum(layer.weight.numel() for layer in linears(module).values())
        stored -= codes * (8 - bits) // 8
    changed = sum(tensor_bytes(linears(module)[name]) < size for name, size in before.items())
    note = f"{changed} linear layers of {len(before)}; convolutions stay floating"
    versions = {"torchao": importlib.metadata.version("torchao")}
    return loaded(
        module, request, stored_bytes=stored, held_bytes=held, note=note, versions=versions
    )


def linears(module: nn.Module) -> dict[str, nn.Linear]:
    return {n: m for n, m in module.named_modules() if isinstance(m, nn.Linear)}


def config_of(options: Any) -> Any:
    way = options["way"]
    if way == "int8-dynamic":
        return ao.Int8DynamicActivationInt8WeightConfig()
    if way == "int8-weights":
        return ao.Int8WeightOnlyConfig()
    if way == "int4-weights":
        packing = "tile_packed_to_4d" if torch.cuda.is_available() else "plain_int32"
        return ao.Int4WeightOnlyConfig(
            group_size=options["group"], int4_packing_format=Int4PackingFormat(packing)
        )
    assert way == "intx"
    group = options.get("group")
    return ao.IntxWeightOnlyConfig(
        weight_dtype=getattr(torch, f"int{options['bits']}"),
        granularity=PerGroup(group) if group else PerAxis(0),
    )
