"""Averages that the programs keep to, for the user's budget."""

from __future__ import annotations

from collections.abc import Mapping

from mezzotint.calibration import input_sizes
from mezzotint.errors import ModelError, UsageError
from mezzotint.models import LayerGroup
from mezzotint.plan import Choice
from mezzotint.recipes.costs import byte_limit, choice_bytes
from mezzotint.recipes.mixdq.method import Method
from mezzotint.recipes.mixdq.programs import Programs, Sensitivity


def weight_costs(method: Method) -> dict[str, dict[Choice, int]]:
    """Bytes of every candidate: as stored, or by the width alone."""
    widths = {
        LayerGroup.CONTENT: method.options.content_weight_bits,
        LayerGroup.QUALITY: method.options.quality_weight_bits,
    }
    act_bits = max(method.options.activation_bits) if method.quantizes_inputs else None
    costs: dict[str, dict[Choice, int]] = {}
    for layer in method.study.layers:
        weight = method.study.weight(layer)
        costs[layer.name] = {}
        for width in widths[method.groups[layer.name]]:
            choice = method.choice(layer.name, width, act_bits)
            nominal = -(-width * layer.parameters // 8)
            stored = choice_bytes(layer, choice, weight)
            costs[layer.name][choice] = stored if method.options.counting == "stored" else nominal
    return costs


def weight_target(method: Method) -> float:
    """Average bits per weight that satisfy every part of the budget.

    Raises:
        InfeasibleBudgetError: the narrowest candidates exceed it; names the nearest feasible.
        UsageError: a size is given, but nominal bits are counted, or a window is.
    """
    budget = method.study.job.budget
    if budget.size is not None and method.options.counting == "nominal":
        raise UsageError("size: is about stored bytes; leave counting=nominal out with it")
    if budget.size is not None and method.options.tolerance is not None:
        raise UsageError("size: is at most so many bytes; leave tolerance out with it")
    limit = byte_limit(budget, method.study.job.denoiser, method.study.layers, weight_costs(method))
    if budget.size is None and budget.weight_bits is not None:
        return float(budget.weight_bits)
    target = float(limit.maximum) * 8 / sum(layer.parameters for layer in method.study.layers)
    # Bytes are whole: so much more buys none, but the quotient may have been rounded down.
    return target * (1 + 1e-12)


def weight_programs(method: Method, layers: Mapping[str, Sensitivity]) -> Programs:
    """Programs over the widths of the weights."""
    parameters = {layer.name: layer.parameters for layer in method.study.layers}
    costs = weight_costs(method)
    bits = {
        name: {
            width: cost * 8 / parameters[name]
            for width, cost in zip(layers[name].scores, costs[name].values(), strict=True)
        }
        for name in layers
    }
    nominal = method.options.counting == "nominal"
    return Programs(
        field="weight_bits",
        layers=layers,
        sizes={name: float(size) for name, size in parameters.items()},
        target=weight_target(method),
        bits=None if nominal else bits,
        tolerance=method.options.tolerance,
    )


def input_programs(method: Method, layers: Mapping[str, Sensitivity]) -> Programs:
    """Programs over the widths of the inputs; protected layers are not among `layers`.

    Raises:
        ModelError: MACs are to be counted, and the model cannot be run to count them.
    """
    if method.options.activation_cost == "macs":
        sizes = {layer.name: float(layer.macs or 0) for layer in method.study.layers}
        if not any(sizes.values()):
            raise ModelError(
                f"{method.study.job.model}: its multiplications cannot be counted; use "
                "activation_cost=bytes"
            )
    else:
        choices = {layer.name: method.choice(layer.name, 8, None) for layer in method.study.layers}
        found = input_sizes(method.study.job.denoiser, method.study.graph, choices)
        sizes = {name: float(size) for name, size in found.items()}
    return Programs(
        field="act_bits",
        layers=layers,
        sizes={name: sizes[name] for name in layers},
        target=float(method.study.job.budget.act_bits),
        tolerance=method.options.tolerance,
    )
