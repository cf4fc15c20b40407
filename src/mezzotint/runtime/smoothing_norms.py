"""Norms that smooth the inputs of the layers after them, in a plan and in a packed model."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mezzotint.errors import FormatError, PlanError
from mezzotint.plan import Plan, Tensors
from mezzotint.runtime.calibration_values import Calibration
from mezzotint.runtime.pack import storable
from mezzotint.runtime.structured import shape_of
from mezzotint.runtime.structures.norm_smoothing import NormSmoothing
from mezzotint.runtime.structures.smoothing import EXPONENT, powers_of_two


def smoothing_norms(plan: Plan) -> dict[str, tuple[str, ...]]:
    """Norm → the plan's layers whose inputs it smooths."""
    found: dict[str, tuple[str, ...]] = {}
    for name, choice in plan.quantized.items():
        for each in choice.structures:
            if isinstance(each, NormSmoothing):
                found[each.norm] = (*found.get(each.norm, ()), name)
    return found


def check_smoothing_norms(module: nn.Module, plan: Plan) -> None:
    """Refuse norms that `module` does not have, or that have no weight for the layers' channels.

    Raises:
        PlanError: naming the layer and the norm.
    """
    modules = dict(module.named_modules())
    for norm, layers in smoothing_norms(plan).items():
        weight = getattr(modules.get(norm), "weight", None)
        for layer in layers:
            channels = shape_of(modules[layer]).in_channels
            if not isinstance(weight, Tensor) or weight.shape != (channels,):
                raise PlanError(
                    f"layer {layer}: {NormSmoothing.kind}: {norm} is no norm of "
                    f"{type(module).__name__} with a weight for each of the layer's {channels} "
                    "input channels; take smoothing, which needs none"
                )


def check_common_exponents(plan: Plan, calibration: Calibration) -> None:
    """Refuse calibrated exponents that differ between layers of one norm; all are there.

    Raises:
        FormatError: naming two of the layers.
    """
    for norm, (first, *others) in smoothing_norms(plan).items():
        for other in others:
            ours, theirs = (calibration.tensors[name][EXPONENT] for name in (first, other))
            if not torch.equal(ours.cpu(), theirs.cpu()):
                raise FormatError(
                    f"layer {other}: {NormSmoothing.kind}: its exponents are not those of {first}, "
                    f"which {norm} smooths as well; take those of a calibration after this plan"
                )


@torch.no_grad()
def smoothed_parameters(
    module: nn.Module, plan: Plan, tensors: Mapping[str, Tensors]
) -> dict[str, Tensor]:
    """Weights and biases of the plan's norms, multiplied by powers of two: dotted name → value.

    Exact, but for values so small that the dtype in which the norm is stored cannot hold them.

    Args:
        module: with the norms as they were.
        plan: names them.
        tensors: layer → calibrated tensors of its structures.
    """
    found: dict[str, Tensor] = {}
    for norm, (layer, *_) in smoothing_norms(plan).items():
        owner = module.get_submodule(norm)
        for own, parameter in owner.named_parameters(recurse=False):
            powers = powers_of_two(-tensors[layer][EXPONENT]).to(parameter.device)
            value = parameter.detach() * powers.to(parameter.dtype)
            found[f"{norm}.{own}"] = storable(owner, own, value)
    return found


@torch.no_grad()
def smooth_norms(module: nn.Module, plan: Plan, calibration: Calibration) -> None:
    """Let the plan's norms smooth what they give to the layers after them, in place."""
    for name, value in smoothed_parameters(module, plan, calibration.tensors).items():
        module.get_parameter(name).copy_(value)
