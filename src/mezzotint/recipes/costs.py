"""Limits on sums over layers, for a budget in the user's terms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from operator import itemgetter

from torch import Tensor, nn

from mezzotint.allocation import Limit
from mezzotint.errors import FormatError, InfeasibleBudgetError
from mezzotint.models import Layer, quantized_parts
from mezzotint.plan import Budget, Choice
from mezzotint.runtime import module_bytes, stored_tensors

BYTES = "bytes"


def choice_bytes(layer: Layer, choice: Choice, weight: Tensor) -> int:
    """Stored bytes of one layer's `weight` under `choice`.

    Raises:
        FormatError: the weight format is for other shapes; the layer is named.
    """
    if not choice.quantized:
        return layer.weight_bytes
    try:
        specs = stored_tensors(choice, layer.weight_shape, layer.groups)
    except FormatError as cause:
        raise FormatError(f"layer {layer.name}: {cause}") from cause
    return sum(spec.nbytes for spec in specs.values())


def floating_bytes(denoiser: nn.Module, layers: Sequence[Layer]) -> int:
    """Bytes of everything but the layers' weights: norms, biases, embeddings."""
    stored = sum(map(module_bytes, quantized_parts(denoiser).values()))
    return stored - sum(layer.weight_bytes for layer in layers)


def byte_limit(
    budget: Budget,
    denoiser: nn.Module,
    layers: Sequence[Layer],
    costs: Mapping[str, Mapping[Choice, int]],
) -> Limit:
    """The limit on Σ stored weight bytes that satisfies every part of `budget`.

    Raises:
        InfeasibleBudgetError: even the smallest choices exceed it; names the nearest feasible
            figure in the budget's own unit.
    """
    weights = sum(layer.parameters for layer in layers)
    fixed = floating_bytes(denoiser, layers)
    least = sum(min(costs[layer.name].values()) for layer in layers)
    limits: list[float] = []
    if budget.weight_bits is not None:
        limits.append(budget.weight_bits * weights / 8)
        if least > limits[-1]:
            raise InfeasibleBudgetError(
                f"weight_bits {budget.weight_bits:g} cannot be met: with scales the candidate "
                f"formats need {rounded_up(least * 8 / weights)} bits per weight or more"
                + _remedy(least - limits[-1], denoiser, layers, costs)
            )
    if budget.bytes is not None:
        limits.append(budget.bytes - fixed)
        if least > limits[-1]:
            raise InfeasibleBudgetError(
                f"size {budget.size} cannot be met: the smallest plan takes {fixed + least} bytes, "
                f"of which {fixed} stay floating point (norms, biases, embeddings)"
                + _remedy(least - limits[-1], denoiser, layers, costs)
            )
    return Limit(BYTES, maximum=min(limits))


def _remedy(
    excess: float,
    denoiser: nn.Module,
    layers: Sequence[Layer],
    costs: Mapping[str, Mapping[Choice, int]],
) -> str:
    """Advice to leave structures out, where they alone exceed a budget; or else to allow more."""
    spared, switches = 0, set[str]()
    for layer in layers:
        choice, cost = min(costs[layer.name].items(), key=itemgetter(1))
        weight = denoiser.get_submodule(layer.name).get_parameter("weight")
        # Nominal costs know no structure: leaving it out spares nothing.
        if choice.structures and cost == choice_bytes(layer, choice, weight):
            spared += cost - choice_bytes(layer, choice.plain, weight)
            switches.update(each.left_out_by or f"no {each.kind}" for each in choice.structures)
    if excess > spared:
        return "; allow more"
    return f"; with {' and '.join(sorted(switches))} it can be met"


def rounded_up(bits: float) -> str:
    """The value to three decimals, so that asking for what is named will do."""
    return f"{math.ceil(bits * 1e3) / 1e3:.3f}"
