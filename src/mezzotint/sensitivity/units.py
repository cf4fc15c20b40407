"""What is measured: one layer takes a choice, all others stay floating."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from mezzotint.errors import FormatError, PlanError
from mezzotint.formats import ActivationFormat
from mezzotint.plan import Choice
from mezzotint.runtime import (
    InputRange,
    Packing,
    check_input_ranges,
    operation_of,
    pack_layer,
    part_inputs,
)
from mezzotint.runtime.operands import Operation


@dataclass(frozen=True)
class Unit:
    """One measurement: this layer takes this choice, all others stay floating.

    Attributes:
        layer: dotted name.
        choice: weight and activation format, constant tokens, split.
        input_only: round the layer's input as `choice` says, but leave its weight floating.
    """

    layer: str
    choice: Choice
    input_only: bool = False

    @property
    def name(self) -> str:
        """Key in the journal."""
        weight = "float" if self.input_only else self.choice.weight
        parts = (self.layer, weight, self.choice.activation, self.choice.structure)
        return " | ".join(part for part in parts if part)


@contextmanager
def changed_layer(denoiser: nn.Module, unit: Unit, packing: Packing) -> Iterator[None]:
    """The denoiser with one layer changed as `unit` says, undone at the end.

    Where the weight changes, the layer is replaced by the packed one, so that what is measured is
    what will run. Where only the input does, it is rounded as the packed layer would round it, and
    its constant tokens are left as they are.

    Raises:
        FormatError: the layer's weight holds NaN, or `packing` lacks a range or a constant output;
            the layer is named.
        PlanError: the layer is not a Linear or Conv2d, or cannot take the choice.
    """
    layer = denoiser.get_submodule(unit.layer)
    if not unit.choice.quantized:
        yield
    elif unit.input_only:
        with _rounded_input(layer, unit, packing.input_ranges.get(unit.layer, ())):
            yield
    else:
        denoiser.set_submodule(unit.layer, pack_layer(unit.layer, layer, unit.choice, packing))
        try:
            yield
        finally:
            denoiser.set_submodule(unit.layer, layer)


@contextmanager
def _rounded_input(layer: nn.Module, unit: Unit, ranges: Sequence[InputRange]) -> Iterator[None]:
    if not isinstance(layer, nn.Linear | nn.Conv2d):
        raise PlanError(f"layer {unit.layer} is a {type(layer).__name__}, not a Linear or Conv2d")
    try:
        check_input_ranges(unit.choice, ranges)
    except FormatError as cause:
        raise FormatError(f"layer {unit.layer}: {cause}") from cause
    hook = layer.register_forward_pre_hook(_rounding(unit.choice, ranges, operation_of(layer)))
    try:
        yield
    finally:
        hook.remove()


def _rounding(
    choice: Choice, ranges: Sequence[InputRange], operation: Operation
) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    """A hook that rounds what each quantizer of a packed layer would see, by its own range."""
    activation = choice.activation_format

    def round_input(layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        x, *rest = inputs
        if activation is None:
            return inputs
        x = x.clone()
        for index, part in enumerate(part_inputs(x, choice, operation)):
            seen = ranges[index] if activation.static else None
            part.copy_(_rounded(part, activation, seen, operation))
        return (x, *rest)

    return round_input


def _rounded(
    x: Tensor, activation: ActivationFormat, seen: InputRange | None, operation: Operation
) -> Tensor:
    if seen is None:
        scale, zero_point = activation.dynamic_parameters(x, operation.token_dims)
    else:
        scale, zero_point = activation.range_parameters(seen.low, seen.high, x.device)
    return activation.roundtrip(x, scale, zero_point)
