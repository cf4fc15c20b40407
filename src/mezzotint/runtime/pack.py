"""One float layer and its choice in; the packed layer out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mezzotint.errors import FormatError, PlanError
from mezzotint.formats import MSE, RangeSearch, check_finite
from mezzotint.plan import Choice
from mezzotint.runtime.layers import quant_like
from mezzotint.runtime.packed import InputRange, PackedLayer, check_input_ranges
from mezzotint.runtime.structure import ConstantTokens, SplitLayer, check_constant


@dataclass(frozen=True)
class Packing:
    """How weights are turned into codes, and what calibration found out for it.

    Attributes:
        search: choice of the clipping ranges.
        input_ranges: calibrated ranges, one per part, for layers with a static activation format.
        constants: calibrated outputs, floating [constant_tokens, out_features], for layers with
            constant tokens.
    """

    search: RangeSearch = MSE
    input_ranges: Mapping[str, tuple[InputRange, ...]] = field(default_factory=dict)
    constants: Mapping[str, Tensor] = field(default_factory=dict)


def empty_layer(name: str, layer: nn.Module, choice: Choice) -> PackedLayer:
    """A packed layer like `layer`, on its device, without weights.

    Raises:
        PlanError: the layer is neither a Linear nor a Conv2d, has a padding mode of its own, or
            cannot have the constant tokens or split of `choice`.
    """
    # Subclasses may compute something else with their weight, so only the exact types count.
    if type(layer) is not nn.Linear and type(layer) is not nn.Conv2d:
        raise PlanError(
            f"layer {name} is a {type(layer).__name__}; only Linear and Conv2d can be quantized, "
            "so choose 'float' for it"
        )
    try:
        quantizable = quant_like(layer, choice.plain)
    except (PlanError, FormatError) as cause:
        raise PlanError(f"layer {name}: {cause}; choose 'float' for it") from cause
    packed = _structured(name, layer, choice) if choice.structure else quantizable
    packed.weight_dtype = layer.weight.dtype
    return packed


def _structured(name: str, layer: nn.Linear | nn.Conv2d, choice: Choice) -> PackedLayer:
    if choice.split:
        try:
            return SplitLayer.like(layer, choice)
        except PlanError as cause:
            raise PlanError(f"layer {name}: {cause}") from cause
    if isinstance(layer, nn.Conv2d):
        raise PlanError(
            f"layer {name}: a convolution has no constant tokens; leave constant_tokens out"
        )
    return ConstantTokens.like(layer, choice)


def check_packing(name: str, layer: nn.Module, choice: Choice, packing: Packing) -> None:
    """Raise FormatError, naming the layer, where `packing` lacks what `choice` needs calibrated."""
    out_features = len(layer.get_parameter("weight"))
    with naming(name):
        check_input_ranges(choice, packing.input_ranges.get(name, ()))
        check_constant(choice, out_features, packing.constants.get(name))


def pack_layer(
    name: str, layer: nn.Module, choice: Choice, packing: Packing | None = None
) -> PackedLayer:
    """The packed layer that stands for the float `layer` called `name`, which is left alone.

    Raises:
        PlanError: the layer cannot take that choice.
        FormatError: the weight holds NaN or infinity, or a static range or a constant output is
            missing; the layer is named.
    """
    packing = packing or Packing()
    packed = empty_layer(name, layer, choice)
    check_packing(name, layer, choice, packing)
    with torch.no_grad(), naming(name):
        weight = layer.get_parameter("weight")
        check_finite(weight)
        packed.load_weight(weight, packing.search, packing.input_ranges.get(name, ()))
        if isinstance(packed, ConstantTokens):
            packed.load_constant(packing.constants[name])
    return packed.train(layer.training)


@contextmanager
def naming(layer: str) -> Iterator[None]:
    """Put the layer's name before what a FormatError says."""
    try:
        yield
    except FormatError as cause:
        raise FormatError(f"layer {layer}: {cause}") from cause
