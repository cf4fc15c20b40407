"""One float layer, a plan and what was calibrated in; the packed layer out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from mezzotint._stored_dtypes import stored_dtype
from mezzotint.errors import FormatError, PlanError
from mezzotint.plan import (
    ONLY_IN_CHECKPOINT,
    TRAINED,
    Choice,
    Encoding,
    Plan,
)
from mezzotint.rounding import InputMoments
from mezzotint.runtime.bias_correction import bias_shift
from mezzotint.runtime.calibration_values import Calibration
from mezzotint.runtime.composition import own_tensors
from mezzotint.runtime.encoded import EncodedWeights, LayerToEncode
from mezzotint.runtime.layer import part_tensors
from mezzotint.runtime.layer_tensors import check_calibrated, quantizers, stored_tensors
from mezzotint.runtime.layers import check_padding_mode, operation_of
from mezzotint.runtime.lazy_weight import dense
from mezzotint.runtime.packed import (
    GridValues,
    PackedLayer,
    check_input_ranges,
)
from mezzotint.runtime.structured import packed_like, shape_of


def check_layer(name: str, layer: nn.Module, choice: Choice) -> None:
    """Refuse a choice that `layer` cannot take. Nothing is built for it.

    Raises:
        PlanError: the layer is neither a Linear nor a Conv2d, has a padding mode of its own or
            forward hooks, or cannot have a format or structure of `choice`; the layer is named.
    """
    # Subclasses may compute something else with their weight, so only the exact types count.
    if type(layer) is not nn.Linear and type(layer) is not nn.Conv2d:
        raise PlanError(
            f"layer {name} is a {type(layer).__name__}; only Linear and Conv2d can be quantized, "
            "so choose 'float' for it"
        )
    if layer._forward_hooks or layer._forward_pre_hooks:
        raise PlanError(
            f"layer {name} has forward hooks, which its packed layer would not run; remove them "
            "before, or choose 'float' for it"
        )
    shape = shape_of(layer)
    try:
        if isinstance(layer, nn.Conv2d):
            check_padding_mode(layer)
        if not choice.part_formats:
            part_tensors(choice.plain, shape.weight)
    except (PlanError, FormatError) as cause:
        raise PlanError(f"layer {name}: {cause}; choose 'float' for it") from cause
    try:
        if choice.activation_format is not None:
            operation_of(layer).scale_dims(choice.activation_format)
        stored_tensors(choice, shape.weight, shape.groups)
    except (PlanError, FormatError) as cause:
        raise PlanError(f"layer {name}: {cause}") from cause


def empty_layer(name: str, layer: nn.Module, choice: Choice) -> PackedLayer:
    """A packed layer like `layer`, on its device, without weights.

    Raises:
        PlanError: as `check_layer`.
    """
    check_layer(name, layer, choice)
    return unfilled_layer(layer, choice)


def unfilled_layer(layer: nn.Module, choice: Choice) -> PackedLayer:
    """The same, of a layer that is checked already."""
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    packed = packed_like(layer, choice)
    packed.weight_dtype = layer.weight.dtype
    return packed


def check_calibration(name: str, layer: nn.Module, plan: Plan, calibration: Calibration) -> None:
    """Raise FormatError, naming the layer, where `calibration` lacks what the plan needs of it."""
    choice, encoding = plan[name], plan.encoding_of(name)
    with naming(name):
        check_input_ranges(choice, calibration.input_ranges.get(name, ()))
        check_calibrated(choice, shape_of(layer), calibration.tensors.get(name, {}))
        _check_values(choice, encoding, calibration.weights.get(name, ()))
        asked = LayerToEncode(name, layer, choice, encoding, calibration)
        if not _encoded_before(asked, calibration.encoded):
            _check_moments(layer, choice, encoding, calibration.moments.get(name, ()))


def _encoded_before(asked: LayerToEncode, encoded: EncodedWeights | None) -> bool:
    """Return whether stored tensors are there, and nothing else is made of the moments."""
    if encoded is None or asked.encoding.trained or asked.encoding.bias_correction:
        return False
    return asked.choice.quantized and encoded.holds(asked)


def _check_values(choice: Choice, encoding: Encoding, values: Sequence[GridValues]) -> None:
    if encoding.trained and not values:
        raise FormatError(f"rounding {TRAINED!r}: {ONLY_IN_CHECKPOINT}")
    if values and not encoding.trained:
        raise FormatError(
            f"there are trained values for it, but its rounding is {encoding.rounding!r}; "
            f"make that {TRAINED!r}"
        )
    if values and len(values) != choice.parts:
        raise FormatError(f"{len(values)} trained weights met {choice.parts} parts")


def _check_moments(
    layer: nn.Module, choice: Choice, encoding: Encoding, moments: Sequence[InputMoments]
) -> None:
    if not encoding.needs_moments(bias=layer.bias is not None):
        return
    what = f"rounding {encoding.rounding!r}" if encoding.needs_grams else "bias_correction"
    if len(moments) != choice.parts:
        each = "" if choice.parts == 1 else f" for each of its {choice.parts} parts"
        raise FormatError(
            f"{what} needs the calibrated moments of its inputs{each}: apply the plan to a "
            "pipeline, which gathers them, or choose rounding 'nearest' without bias correction"
        )
    shapes = [shape for _, shape in quantizers(choice.structures, shape_of(layer))]
    for shape, part in zip(shapes, moments, strict=True):
        columns = math.prod(shape.weight[1:])
        part.check(shape.out_channels, columns, grams=encoding.needs_grams)


def pack_layer(
    name: str, layer: nn.Module, plan: Plan, calibration: Calibration | None = None
) -> PackedLayer:
    """The packed layer that stands for the float `layer` called `name`, which is left alone.

    Raises:
        PlanError: the layer cannot take what the plan says of it.
        FormatError: the weight holds NaN or infinity, or a static range or a calibrated tensor
            is missing; the layer is named.
    """
    calibration = (calibration or Calibration()).under({name: plan[name]})
    check_layer(name, layer, plan[name])
    check_calibration(name, layer, plan, calibration)
    return pack_weight(name, layer, layer.get_parameter("weight"), plan, calibration)


def pack_weight(
    name: str, layer: nn.Module, weight: Tensor, plan: Plan, calibration: Calibration
) -> PackedLayer:
    """Pack a weight that stands apart from its layer; layer and calibration are checked already.

    The one place where a plan becomes stored tensors, for layers in memory and on their way there.

    Args:
        name: of the layer.
        layer: checked, see `check_layer`; gives geometry and bias, and its own weight may stand on
            the meta device.
        weight: floating, of the layer's shape.
        plan: names the layer.
        calibration: checked, see `check_calibration`.

    Raises:
        FormatError: the weight holds NaN or infinity; the layer is named.
    """
    packed, encoding = unfilled_layer(layer, plan[name]), plan.encoding_of(name)
    weight = dense(weight)  # read once, where it stays on disk
    with torch.no_grad(), naming(name):
        if plan[name].structures:
            packed.load_tensors(calibration.tensors.get(name, {}))
        parts = calibration.of_parts(name, plan[name].parts)
        if calibration.encoded is not None and not encoding.trained:
            asked = LayerToEncode(name, layer, plan[name], encoding, calibration)
            stored = calibration.encoded.parts(asked)
            parts = tuple(
                replace(part, encoded={key: tensor.clone() for key, tensor in each.items()})
                for part, each in zip(parts, stored, strict=True)
            )
        packed.load_weight(weight, encoding, parts)
        if encoding.bias_correction and packed.bias is not None:
            decoded = [part.packed_weight.dequantized(torch.float32) for part in packed.parts]
            bias = corrected_bias(name, layer, weight, decoded, packed.choice, calibration)
            packed.bias.copy_(bias)
    return packed.train(layer.training)


def corrected_bias(
    name: str,
    layer: nn.Module,
    weight: Tensor,
    decoded: Sequence[Tensor],
    choice: Choice,
    calibration: Calibration,
) -> Tensor:
    """A layer's bias with the mean output error of its rounded weight, as it will be stored.

    Args:
        name: of the layer.
        layer: floating; its own weight may stand on the meta device.
        weight: floating.
        decoded: rounded, of each quantizer.
        choice: gives the structures.
        calibration: has the moments of its inputs.
    """
    shape, structures = shape_of(layer), choice.structures
    own = own_tensors(structures, weight.detach(), shape, calibration.tensors.get(name, {}))
    shift = bias_shift(weight, decoded, calibration.moments[name], structures, shape, own)
    bias = layer.get_parameter("bias").detach()
    return storable(layer, "bias", bias + shift.to(bias.device))


def storable(module: nn.Module, name: str, value: Tensor) -> Tensor:
    """A new value of a parameter as it will be stored: in the old one's dtype, where it fits in."""
    dtype = stored_dtype(module, name, module.get_parameter(name))
    rounded = value.to(dtype).to(value.dtype)
    return rounded if bool(rounded.isfinite().all()) else value


@contextmanager
def naming(layer: str) -> Iterator[None]:
    """Put the layer's name before what a FormatError says."""
    try:
        yield
    except FormatError as cause:
        raise FormatError(f"layer {layer}: {cause}") from cause
