"""A float module and a plan in; the same module with packed layers out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn

from mezzotint.errors import FormatError, PlanError
from mezzotint.formats import MSE, RangeSearch, check_finite
from mezzotint.plan import Choice, Plan
from mezzotint.runtime.layers import (
    InputRange,
    QuantConv2d,
    QuantLayer,
    QuantLinear,
    check_input_range,
)


@dataclass(frozen=True)
class Packing:
    """How weights are turned into codes.

    Attributes:
        search: choice of the clipping ranges.
        input_ranges: calibrated ranges, for layers with a static activation format.
    """

    search: RangeSearch = MSE
    input_ranges: Mapping[str, InputRange] = field(default_factory=dict)


def empty_layer(name: str, layer: nn.Module, choice: Choice) -> QuantLayer:
    """A packed layer like `layer`, on its device, without weights.

    Raises:
        PlanError: the layer is neither a Linear nor a Conv2d, or has a padding mode of its own.
    """
    # Subclasses may compute something else with their weight, so only the exact types count.
    try:
        if type(layer) is nn.Linear:
            return QuantLinear.like(layer, choice)
        if type(layer) is nn.Conv2d:
            return QuantConv2d.like(layer, choice)
    except (PlanError, FormatError) as cause:
        raise PlanError(f"layer {name}: {cause}; choose 'float' for it") from cause
    raise PlanError(
        f"layer {name} is a {type(layer).__name__}; only Linear and Conv2d can be quantized, "
        "so choose 'float' for it"
    )


def check_plan(module: nn.Module, plan: Plan) -> None:
    """Raise PlanError unless every layer of the plan exists in `module` and can be quantized."""
    modules = dict(module.named_modules())
    for name, choice in plan.choices.items():
        if name not in modules:
            raise PlanError(
                f"the plan names layer {name}, which {type(module).__name__} does not have; "
                "was it made for another model?"
            )
        if choice.quantized and not name:
            raise PlanError(
                f"a bare {type(module).__name__} cannot be replaced in place; "
                "put it into a module, such as nn.Sequential"
            )
        if choice.quantized:
            empty_layer(name, modules[name], choice)


def quantize_module(
    module: nn.Module,
    plan: Plan,
    packing: Packing | None = None,
    progress: Callable[[str], object] = lambda name: None,
) -> nn.Module:
    """Replace, in place and one at a time, the layers that `plan` quantizes.

    Each float weight is released as soon as its packed form exists. All layers, their weights and
    input ranges are checked before the first is touched.

    Raises:
        PlanError: a layer is unknown or of an unsupported type.
        FormatError: a weight holds NaN or a static range is missing; the layer is named.
    """
    packing = packing or Packing()
    check_plan(module, plan)
    _check_contents(module, plan, packing)
    for name, choice in plan.quantized.items():
        layer = module.get_submodule(name)
        assert isinstance(layer, nn.Linear | nn.Conv2d)
        packed = empty_layer(name, layer, choice)
        with torch.no_grad(), _naming(name):
            packed.load_weight(layer.weight, packing.search, packing.input_ranges.get(name))
        module.set_submodule(name, packed.train(layer.training))
        progress(name)
    return module


def _check_contents(module: nn.Module, plan: Plan, packing: Packing) -> None:
    for name, choice in plan.quantized.items():
        with _naming(name):
            check_input_range(choice.activation_format, packing.input_ranges.get(name))
            check_finite(module.get_submodule(name).get_parameter("weight"))


@contextmanager
def _naming(name: str) -> Iterator[None]:
    try:
        yield
    except FormatError as cause:
        raise FormatError(f"layer {name}: {cause}") from cause


def dequantize_module(module: nn.Module) -> nn.Module:
    """Replace, in place, every packed layer by a stock one with the dequantized weight.

    A layer without bias takes the dtype of the module's first floating parameter.
    """
    floating = (p.dtype for p in module.parameters() if p.is_floating_point())
    dtype = next(floating, torch.float32)
    for name, layer in packed_layers(module).items():
        module.set_submodule(name, layer.to_float(dtype))
    return module


def packed_layers(module: nn.Module) -> dict[str, QuantLayer]:
    """Every packed layer by its dotted name."""
    return {name: m for name, m in module.named_modules() if isinstance(m, QuantLayer)}


@dataclass(frozen=True)
class Execution:
    """How one packed layer computes on its present device."""

    layer: str
    choice: Choice
    kernel: str
    arithmetic: str
    reason: str | None


def executions(module: nn.Module) -> tuple[Execution, ...]:
    """The kernel of every packed layer, and why a preferred one did not take it."""
    return tuple(
        Execution(
            layer=name,
            choice=layer.choice,
            kernel=layer.selection.kernel.name,
            arithmetic=layer.selection.kernel.arithmetic,
            reason=layer.selection.reason,
        )
        for name, layer in packed_layers(module).items()
    )
