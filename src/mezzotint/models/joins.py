"""Layers whose input is two tensors joined: each half has a range of its own.

The skip connections of a U-Net reach `conv_shortcut` that way, and so do the attention and the
feed-forward of FLUX's parallel blocks their common output projection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from typing_extensions import override

from mezzotint.models.calls import Call
from mezzotint.models.examples import example_call
from mezzotint.models.skeleton import skeleton, watch

_JOINING = frozenset({torch.cat, torch.concat, torch.concatenate})


def joined_inputs(denoiser: nn.Module, call: Call | None = None) -> dict[str, int]:
    """Layers (Linear, Conv2d) that read two tensors joined along the channels, nothing between.

    Found by following one forward pass on the meta device, with the shapes of `call` or else of
    `example_call(denoiser)`: shapes only, no weights.

    Returns:
        Layer name → channels of the first tensor (MixDQ, section 3: the shortcut's split).

    Raises:
        ModelError: no example can be made of the denoiser's arguments, or its code cannot be
            followed by shapes alone.
    """
    hollow = skeleton(denoiser)
    call = example_call(denoiser) if call is None else call.to("meta")
    found: dict[str, int] = {}

    def looking(name: str, joins: _Joins) -> Callable[..., None]:
        def look(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
            channels = -1 if isinstance(layer, nn.Linear) else -3
            first = joins.first_size(inputs[0], channels)
            if first is not None:
                found[name] = first

        return look

    with torch.no_grad(), _Joins() as joins:
        for name, layer in hollow.named_modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                layer.register_forward_pre_hook(looking(name, joins))
        watch(hollow, call)
    return found


class _Joins(TorchFunctionMode):
    """Remembers the result of every concatenation of two tensors."""

    def __init__(self) -> None:
        super().__init__()
        # The results are kept: otherwise another tensor might get the same id.
        self._results: dict[int, tuple[Tensor, int, int]] = {}

    @override
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in _JOINING:
            tensors, dim = _arguments(*args, **(kwargs or {}))
            if len(tensors) == 2:
                self._results[id(result)] = (result, dim % result.ndim, tensors[0].shape[dim])
        return result

    def first_size(self, tensor: Tensor, dim: int) -> int | None:
        """Size of the first of the two tensors joined along `dim`, if `tensor` is such a result."""
        result, joined_dim, size = self._results.get(id(tensor), (None, 0, 0))
        return size if result is tensor and joined_dim == dim % tensor.ndim else None


def _arguments(tensors: Any, dim: int = 0, **_: Any) -> tuple[Any, int]:
    return tensors, dim
