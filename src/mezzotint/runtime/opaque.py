"""Packed layers as one operation, for compilers that cannot look into their kernels."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import torch
from torch import Tensor

if TYPE_CHECKING:
    from mezzotint.runtime.layer import QuantLayer

_LAYERS: WeakValueDictionary[int, QuantLayer] = WeakValueDictionary()
_HANDLES = count()


def handle_of(layer: QuantLayer) -> int:
    """A number by which `packed_layer` finds a layer as long as it lives."""
    handle = next(_HANDLES)
    _LAYERS[handle] = layer
    return handle


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def runs_opaque(handle: int, device: str) -> bool:
    """Whether compilers should take the layer behind `handle` as one operation."""
    return _LAYERS[handle].selection_on(device).kernel.opaque


@torch.library.custom_op("mezzotint::packed_layer", mutates_args=())
def packed_layer(x: Tensor, handle: int) -> Tensor:
    """The output of the layer behind `handle`, laid out as `QuantLayer.empty_output` says."""
    layer = _LAYERS[handle]
    y = layer.selection_on(x.device.type).kernel.run(layer, x)
    if y.ndim == 4:
        y = y.contiguous(memory_format=layer.memory_format)
    return y


@packed_layer.register_fake
def _(x: Tensor, handle: int) -> Tensor:
    return _LAYERS[handle].empty_output(x)
