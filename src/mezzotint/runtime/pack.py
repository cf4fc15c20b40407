"""One float layer and its choice in; the packed layer out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn

from mezzotint.errors import FormatError, PlanError
from mezzotint.formats import MSE, RangeSearch, check_finite
from mezzotint.plan import Choice, Tensors
from mezzotint.runtime.composition import check_calibrated
from mezzotint.runtime.layers import quant_like
from mezzotint.runtime.packed import InputRange, PackedLayer, check_input_ranges
from mezzotint.runtime.structured import packed_like, shape_of


@dataclass(frozen=True)
class Packing:
    """How weights are turned into codes, and what calibration found out for it.

    Attributes:
        search: choice of the clipping ranges.
        input_ranges: calibrated ranges, one per part, for layers with a static activation format.
        tensors: what the structures of layers have calibrated: layer → name within it → tensor as
            it is stored.
    """

    search: RangeSearch = MSE
    input_ranges: Mapping[str, tuple[InputRange, ...]] = field(default_factory=dict)
    tensors: Mapping[str, Tensors] = field(default_factory=dict)


def empty_layer(name: str, layer: nn.Module, choice: Choice) -> PackedLayer:
    """A packed layer like `layer`, on its device, without weights.

    Raises:
        PlanError: the layer is neither a Linear nor a Conv2d, has a padding mode of its own, or
            cannot have a structure of `choice`.
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
    if not choice.structures:
        return quantizable
    try:
        return packed_like(layer, choice)
    except PlanError as cause:
        raise PlanError(f"layer {name}: {cause}") from cause


def check_packing(name: str, layer: nn.Module, choice: Choice, packing: Packing) -> None:
    """Raise FormatError, naming the layer, where `packing` lacks what `choice` needs calibrated."""
    with naming(name):
        check_input_ranges(choice, packing.input_ranges.get(name, ()))
        check_calibrated(choice, shape_of(layer), packing.tensors.get(name, {}))


def pack_layer(
    name: str, layer: nn.Module, choice: Choice, packing: Packing | None = None
) -> PackedLayer:
    """The packed layer that stands for the float `layer` called `name`, which is left alone.

    Raises:
        PlanError: the layer cannot take that choice.
        FormatError: the weight holds NaN or infinity, or a static range or a calibrated tensor
            is missing; the layer is named.
    """
    packing = packing or Packing()
    packed = empty_layer(name, layer, choice)
    check_packing(name, layer, choice, packing)
    with torch.no_grad(), naming(name):
        weight = layer.get_parameter("weight")
        check_finite(weight)
        if choice.structures:
            packed.load_tensors(packing.tensors.get(name, {}))
        packed.load_weight(weight, packing.search, packing.input_ranges.get(name, ()))
    return packed.train(layer.training)


@contextmanager
def naming(layer: str) -> Iterator[None]:
    """Put the layer's name before what a FormatError says."""
    try:
        yield
    except FormatError as cause:
        raise FormatError(f"layer {layer}: {cause}") from cause
