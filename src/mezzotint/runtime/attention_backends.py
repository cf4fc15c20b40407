"""Attention that other libraries than torch compute, by the names of a denoiser's processors."""

from __future__ import annotations

import sys
from typing import Any

from torch import nn

from mezzotint._registration import BACKEND

_CLASSES = ("XFormers", "NPU", "XLA")
"""Words in the names of processors that call other libraries."""

_BY_TORCH = (
    "native",
    "_native_cudnn",
    "_native_efficient",
    "_native_flash",
    "_native_math",
    BACKEND,
)
"""Backends of diffusers that call torch's own function, ours where anything follows it."""


def other_attention(denoiser: nn.Module) -> str | None:
    """The first module whose attention another library computes, and by what; None for none."""
    for name, module in denoiser.named_modules():
        processor = getattr(module, "processor", None)
        if processor is None:
            continue
        kind = type(processor).__name__
        if any(word in kind for word in _CLASSES):
            return f"{name} is computed by {kind}"
        if hasattr(processor, "_attention_backend"):
            backend = processor._attention_backend or _usual_backend()
            if backend is not None and _text(backend) not in _BY_TORCH:
                return f"{name} is computed by the backend {_text(backend)!r}"
    return None


def _usual_backend() -> Any:
    """The backend of processors that name none: of a context, or of diffusers' own settings."""
    dispatch = sys.modules.get("diffusers.models.attention_dispatch")
    registry = getattr(dispatch, "_AttentionBackendRegistry", None)
    return None if registry is None else registry.get_active_backend()[0]


def _text(backend: Any) -> str:
    return str(getattr(backend, "value", backend))
