"""Methods of diffusers' models that know nothing of packed weights, replaced on quantized ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import torch
from diffusers import ModelMixin
from torch import nn

from mezzotint._stored_dtypes import stored_state
from mezzotint._tensor_digests import digests_of
from mezzotint.checkpoint.diffusers.named_weights import state_dict
from mezzotint.checkpoint.diffusers.tensor_digests import config_with_digests
from mezzotint.errors import UsageError
from mezzotint.runtime import packed_layers


def count_parameters(
    model: nn.Module, only_trainable: bool = False, exclude_embeddings: bool = False
) -> int:
    """Parameters of the model as it was before it was quantized, as `num_parameters` counts them.

    Packed weights are no parameters of torch's, so diffusers' own count leaves them out.
    """
    counted = type(model).num_parameters(model, only_trainable, exclude_embeddings)  # type: ignore[attr-defined]
    if only_trainable:
        return int(counted)
    packed = packed_layers(model).values()
    return int(counted) + sum(math.prod(layer.weight_shape) for layer in packed)


def refuse_fusing(model: nn.Module, *args: Any, **kwargs: Any) -> None:
    """Refuse `fuse_lora`, before any layer is fused.

    Raises:
        UsageError: always, with the remedy.
    """
    raise UsageError(
        f"fuse_lora: the weights of this {type(model).__name__} are packed, and cannot take an "
        "adapter in; use it unfused (set_adapters sets its weight), or fuse it into the original "
        "and quantize the result"
    )


def move(model: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
    """Move as `to` does, and take a dtype that the model has already for none.

    Pipelines ask for one when they are made of each other (`from_pipe`).

    Raises:
        ValueError: another dtype is asked for, as diffusers refuses it for all quantized models.
    """
    device, dtype, non_blocking, _ = torch._C._nn._parse_to(*args, **kwargs)
    floating: torch.dtype = model.dtype  # type: ignore[assignment]
    if dtype not in (None, floating):
        raise ValueError(
            f"Casting a quantized model to a new dtype is unsupported: this {type(model).__name__} "
            f"computes in {floating}. Load it with dtype={dtype}, in its pipeline, of which "
            f"other parts may be cast by now; from_pipe takes it as it is with dtype={floating}"
        )
    moved: nn.Module = model
    if device is not None:
        moved = type(model).to(model, device=device, non_blocking=non_blocking)
    return moved


@wraps(ModelMixin.save_pretrained)
def save_as_stored(model: nn.Module, *args: Any, **kwargs: Any) -> None:
    """Save what stays floating in the dtypes that it came in, and the digest of every tensor."""
    with stored_state(model):
        digests = digests_of(model.state_dict(), type(model).__name__)
        with config_with_digests(model, digests):
            type(model).save_pretrained(model, *args, **kwargs)  # type: ignore[attr-defined]


_OVERRIDES: dict[str, Callable[..., Any]] = {
    "to": move,
    "save_pretrained": save_as_stored,
    "num_parameters": count_parameters,
    "fuse_lora": refuse_fusing,
    "state_dict": state_dict,
}


def override_methods(model: nn.Module) -> None:
    """Replace, on this one model, the methods that do not fit packed weights.

    They become attributes of the object, which copies carry along; its class stays stock.
    """
    for name, function in _OVERRIDES.items():
        if hasattr(type(model), name):
            setattr(model, name, partial(function, model))


def restore_methods(model: nn.Module) -> None:
    """Undo `override_methods`."""
    for name in _OVERRIDES:
        vars(model).pop(name, None)
