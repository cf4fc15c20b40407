"""What is measured: one layer takes a choice, all others stay floating."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from mezzotint.errors import FormatError, PlanError
from mezzotint.formats import ActivationFormat
from mezzotint.plan import Choice, Encoding, Plan, Tensors
from mezzotint.runtime import (
    Calibration,
    InputRange,
    check_input_ranges,
    join_inputs,
    operation_of,
    own_tensors,
    pack_layer,
    part_inputs,
    shape_of,
)
from mezzotint.runtime.operands import Operation


@dataclass(frozen=True)
class Unit:
    """One measurement: this layer takes this choice, all others stay floating.

    Attributes:
        layer: dotted name.
        choice: weight and activation format, structures.
        encoding: how the weight is rounded.
        input_only: round the layer's input as `choice` says, but leave its weight floating.
    """

    layer: str
    choice: Choice
    encoding: Encoding = field(default_factory=Encoding)
    input_only: bool = False

    @property
    def name(self) -> str:
        """Key in the journal."""
        weight = "float" if self.input_only else self.choice.weight
        parts = (self.layer, weight, self.choice.activation, self.choice.label)
        return " | ".join(part for part in parts if part)


@contextmanager
def changed_layer(denoiser: nn.Module, unit: Unit, calibration: Calibration) -> Iterator[None]:
    """The denoiser with one layer changed as `unit` says, undone at the end.

    Where the weight changes, the layer is replaced by the packed one, so that what is measured is
    what will run. Where only the input does, it is rounded as the packed layer would round it, and
    what no quantizer sees of it, such as constant tokens, is left as it is.

    Raises:
        FormatError: the layer's weight holds NaN, or `calibration` lacks a range or a
            calibrated tensor; the layer is named.
        PlanError: the layer is not a Linear or Conv2d, or cannot take the choice.
    """
    layer = denoiser.get_submodule(unit.layer)
    if not unit.choice.quantized:
        yield
    elif unit.input_only:
        with _rounded_input(layer, unit, calibration):
            yield
    else:
        plan = Plan({unit.layer: unit.choice}, encoding=unit.encoding)
        denoiser.set_submodule(unit.layer, pack_layer(unit.layer, layer, plan, calibration))
        try:
            yield
        finally:
            denoiser.set_submodule(unit.layer, layer)


@contextmanager
def _rounded_input(layer: nn.Module, unit: Unit, calibration: Calibration) -> Iterator[None]:
    if not isinstance(layer, nn.Linear | nn.Conv2d):
        raise PlanError(f"layer {unit.layer} is a {type(layer).__name__}, not a Linear or Conv2d")
    ranges, known = (
        calibration.input_ranges.get(unit.layer, ()),
        calibration.tensors.get(unit.layer, {}),
    )
    try:
        check_input_ranges(unit.choice, ranges)
        own = own_tensors(unit.choice.structures, layer.weight.detach(), shape_of(layer), known)
    except FormatError as cause:
        raise FormatError(f"layer {unit.layer}: {cause}") from cause
    hook = layer.register_forward_pre_hook(_rounding(unit.choice, ranges, own))
    try:
        yield
    finally:
        hook.remove()


def _rounding(
    choice: Choice, ranges: Sequence[InputRange], tensors: Tensors
) -> Callable[[nn.Linear | nn.Conv2d, tuple[Any, ...]], tuple[Any, ...]]:
    """A hook that rounds what each quantizer of a packed layer would see, by its own range."""
    activation = choice.activation_format

    def round_input(layer: nn.Linear | nn.Conv2d, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        x, *rest = inputs
        if activation is None:
            return inputs
        shape = shape_of(layer)
        rounded = []
        for index, part in enumerate(part_inputs(x, choice.structures, shape, tensors)):
            seen = ranges[index] if activation.static else None
            rounded.append(_rounded(part, activation, seen, operation_of(layer)).to(x.dtype))
        return (join_inputs(x, rounded, choice.structures, shape, tensors), *rest)

    return round_input


def _rounded(
    x: Tensor, activation: ActivationFormat, seen: InputRange | None, operation: Operation
) -> Tensor:
    if seen is None:
        scale, zero_point = activation.dynamic_parameters(x, operation.token_dims)
    else:
        scale, zero_point = activation.range_parameters(seen.low, seen.high, x.device)
    return activation.roundtrip(x, scale, zero_point)
