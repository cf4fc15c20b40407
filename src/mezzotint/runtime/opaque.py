"""Packed layers as one operation, for compilers that cannot look into their kernels."""

from __future__ import annotations

import weakref
from itertools import count
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from mezzotint.runtime.layer import QuantLayer

# Without callbacks: an interrupt that arrives within one would be swallowed.
_LAYERS: dict[int, weakref.ref[QuantLayer]] = {}
_HANDLES = count()
_FEW = 1024


def handle_of(layer: QuantLayer) -> int:
    """A number by which `packed_layer` finds a layer as long as it lives."""
    handle = next(_HANDLES)
    if handle % _FEW == _FEW - 1:
        for dead in [key for key, found in list(_LAYERS.items()) if found() is None]:
            _LAYERS.pop(dead, None)
    _LAYERS[handle] = weakref.ref(layer)
    return handle


def _layer(handle: int) -> QuantLayer:
    found = _LAYERS[handle]()
    assert found is not None, "the layer is gone"
    return found


def runs_opaque(handle: int, device: str) -> bool:
    """Whether compilers should take the layer behind `handle` as one operation."""
    return _layer(handle).selection_on(device).kernel.opaque


# What torch.compiler.assume_constant_result does, but for importing the whole compiler.
runs_opaque._dynamo_marked_constant = True  # type: ignore[attr-defined]


@torch.library.custom_op("mezzotint::packed_layer", mutates_args=())
def packed_layer(x: Tensor, handle: int) -> Tensor:
    """The output of the layer behind `handle`, laid out as `QuantLayer.empty_output` says."""
    layer = _layer(handle)
    y = layer.run_on(x.device.type, x)
    if y.ndim == 4:
        y = y.contiguous(memory_format=layer.memory_format)
    return y


@packed_layer.register_fake
def _(x: Tensor, handle: int) -> Tensor:
    return _layer(handle).empty_output(x)
