"""Packed layers as one operation, for compilers that cannot look into their kernels."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from mezzotint.runtime.handles import Handles
from mezzotint.runtime.operands import GivenScales


class OpaqueLayer(Protocol):
    """A layer that compilers may take as one operation."""

    def runs_opaque(self, device: str) -> bool:
        """Return whether its kernel on a device is one that compilers cannot trace."""

    def opaque_output(self, x: Tensor, given: GivenScales | None = None) -> Tensor:
        """The output for an input with values, laid out as `empty_output`."""

    def empty_output(self, x: Tensor) -> Tensor:
        """A tensor of the output's shape, dtype and layout, without values."""


_LAYERS: Handles[OpaqueLayer] = Handles()


def handle_of(layer: OpaqueLayer) -> int:
    """A number by which `packed_layer` finds a layer as long as it lives."""
    return _LAYERS.handle_of(layer)


def _layer(handle: int) -> OpaqueLayer:
    return _LAYERS.find(handle)


def runs_opaque(handle: int, device: str) -> bool:
    """Return whether compilers should take the layer behind `handle` as one operation."""
    return _layer(handle).runs_opaque(device)


# The mark of torch.compiler.assume_constant_result, which would import the whole compiler.
runs_opaque._dynamo_marked_constant = True  # type: ignore[attr-defined]


@torch.library.custom_op("mezzotint::packed_layer", mutates_args=())
def packed_layer(x: Tensor, handle: int) -> Tensor:
    """The output of the layer behind `handle`, laid out as its `empty_output`."""
    return _layer(handle).opaque_output(x)


@packed_layer.register_fake
def _(x: Tensor, handle: int) -> Tensor:
    return _layer(handle).empty_output(x)


@torch.library.custom_op("mezzotint::packed_layer_given", mutates_args=())
def packed_layer_given(
    x: Tensor, scale: Tensor, zero_point: Tensor, bias: Tensor | None, handle: int
) -> Tensor:
    """The same of a layer that is given the scale of its input, see `GivenScales`."""
    return _layer(handle).opaque_output(x, GivenScales(scale, zero_point, bias))


@packed_layer_given.register_fake
def _(x: Tensor, scale: Tensor, zero_point: Tensor, bias: Tensor | None, handle: int) -> Tensor:
    return _layer(handle).empty_output(x)
