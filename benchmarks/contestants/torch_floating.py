"""The unquantized denoiser in torch, eager or compiled: the baselines."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
from torch import Tensor, nn

from .messages import CannotRunError, Inputs, Loaded, Request
from .process_memory import tensor_bytes


def load(request: Request, calibration: list[Inputs]) -> Loaded:
    module = load_module(request)
    return loaded(module, request)


def load_module(request: Request) -> nn.Module:
    """The floating denoiser; channels last, which every convolution here prefers."""
    if request.dtype == "float16" and request.device == "cpu":
        raise CannotRunError("no processor computes in float16 faster than in float32")
    cls: Any = getattr(diffusers, request.class_name)
    module: nn.Module = cls.from_pretrained(
        request.folder, torch_dtype=request.torch_dtype, use_safetensors=True
    )
    return module.to(request.device, memory_format=torch.channels_last).eval()


def loaded(module: nn.Module, request: Request, **further: Any) -> Loaded:
    """A module to call, compiled where the options say so."""
    stored = further.pop("stored_bytes", None) or tensor_bytes(module)
    runner: Any = module
    if request.options.get("compile"):
        runner = torch.compile(module, dynamic=False)

    def call(inputs: Inputs) -> Tensor:
        output: Tensor = runner(**inputs)[0]
        return output

    return Loaded(call, stored, float32_bytes=float32_bytes(module), **further)


def float32_bytes(module: nn.Module) -> int:
    """Bytes of tensors that no quantizer has wrapped: weights left alone, biases, norms, scales."""
    plain = (p for p in module.parameters() if type(p) is nn.Parameter)
    return sum(4 * p.numel() for p in plain if p.dtype == torch.float32)
