"""Structures as nodes of an OpenVINO graph: a registry by their type."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from openvino import opset13 as ops
from torch import nn

from mezzotint.engines.openvino.nodes import integers, part_of, with_bias
from mezzotint.engines.openvino.token_nodes import TokenNodes
from mezzotint.errors import UsageError
from mezzotint.formats import from_bits
from mezzotint.plan import Structure
from mezzotint.runtime import (
    ConstantTokens,
    NormSmoothing,
    Smoothing,
    SplitInput,
    StructuredLayer,
    packed_layers,
)
from mezzotint.runtime.structures.constant_tokens import CONSTANT
from mezzotint.runtime.structures.smoothing import EXPONENT, powers_of_two


@dataclass(frozen=True)
class PartNodes:
    """Builds the parts of a layer.

    Attributes:
        build: name of a part and node of its input → node of its output, without bias.
        tokens: comparisons of first tokens in the same graph.
    """

    build: Callable[[str, Any], Any]
    tokens: TokenNodes

    def __call__(self, name: str, x: Any) -> Any:
        """The node of the output of the part called `name`, without bias."""
        return self.build(name, x)


Builder = Callable[[StructuredLayer, Any, PartNodes], Any]
"""The layer, node of its input, and its parts → node of its output, bias included; float32."""

_BUILDERS: dict[type[Structure], Builder] = {}


def register_builder(kind: type[Structure]) -> Callable[[Builder], Builder]:
    """Let OpenVINO compute layers of a structure, by the nodes that the function builds."""

    def register(builder: Builder) -> Builder:
        _BUILDERS[kind] = builder
        return builder

    return register


def builder_of(structure: Structure) -> Builder:
    """The builder for layers of that structure.

    Raises:
        UsageError: there is none.
    """
    if type(structure) not in _BUILDERS:
        raise UsageError(_unknown(structure))
    return _BUILDERS[type(structure)]


def refused_structure(denoiser: nn.Module) -> str | None:
    """The reason why a layer of the denoiser cannot be computed; None when all can."""
    for name, layer in packed_layers(denoiser).items():
        for structure in layer.choice.structures:
            if type(structure) not in _BUILDERS:
                return f"{_unknown(structure)} (layer {name})"
    return None


def _unknown(structure: Structure) -> str:
    return f"does not know the structure {structure.kind}; use the torch engine"


@register_builder(SplitInput)
def _split_input(layer: StructuredLayer, x: Any, part: PartNodes) -> Any:
    structure, dim = layer.structure, layer.shape.channel_dim
    assert isinstance(structure, SplitInput)
    first = part("first", part_of(x, 0, structure.first, dim))
    second = part("second", part_of(x, structure.first, None, dim))
    return with_bias(ops.add(first, second), layer.bias, dim)


@register_builder(Smoothing)
def _smoothing(layer: StructuredLayer, x: Any, part: PartNodes) -> Any:
    factors = layer.shape.along_channels(powers_of_two(-layer.own_tensors[EXPONENT]))
    smoothed = part("smoothed", ops.multiply(x, ops.constant(factors.numpy())))
    return with_bias(smoothed, layer.bias, layer.shape.channel_dim)


@register_builder(NormSmoothing)
def _norm_smoothing(layer: StructuredLayer, x: Any, part: PartNodes) -> Any:
    return with_bias(part("smoothed", x), layer.bias, layer.shape.channel_dim)


@register_builder(ConstantTokens)
def _constant_tokens(layer: StructuredLayer, x: Any, part: PartNodes) -> Any:
    structure = layer.structure
    assert isinstance(structure, ConstantTokens)
    constant = ops.constant(from_bits(layer.own_tensors[CONSTANT], torch.float32).numpy()[None])
    if structure.known_tokens is None:
        others = with_bias(part("others", part_of(x, structure.count, None, 1)), layer.bias, -1)
        batch = ops.gather(ops.shape_of(x), integers(0), integers(0))
        shape = ops.concat([batch, integers(structure.count, layer.shape.out_channels)], 0)
        return ops.concat([ops.broadcast(constant, shape), others], 1)
    found = part.tokens.compared(x, layer.own_tensors[structure.known_tokens])
    output = part("others", found.seen)
    biased = with_bias(output, layer.bias, -1)
    count = structure.count
    first, others = part_of(biased, 0, count, 1), part_of(biased, count, None, 1)
    near = ops.add(part_of(output, 0, count, 1), constant)
    first = ops.select(found.same, constant, ops.select(found.near, near, first))
    return ops.concat([first, others], 1)
