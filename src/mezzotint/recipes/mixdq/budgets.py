"""Averages that the programs keep to, for the user's budget."""

from __future__ import annotations

from collections.abc import Mapping

from mezzotint.calibration import input_sizes
from mezzotint.errors import ModelError, UsageError
from mezzotint.plan import Choice
from mezzotint.recipes.costs import byte_limit, choice_bytes
from mezzotint.recipes.mixdq.method import Setting
from mezzotint.recipes.mixdq.programs import Programs, Sensitivity


def weight_costs(setting: Setting) -> dict[str, dict[Choice, int]]:
    """Bytes of every candidate: as stored, or by the width alone."""
    act_bits = max(setting.options.activation_bits) if setting.quantizes_inputs else None
    costs: dict[str, dict[Choice, int]] = {}
    for layer in setting.study.layers:
        weight = setting.study.weight(layer)
        costs[layer.name] = {}
        for width in setting.weight_widths(layer.name):
            choice = setting.choice(layer.name, width, act_bits)
            nominal = -(-width * layer.parameters // 8)
            stored = choice_bytes(layer, choice, weight)
            costs[layer.name][choice] = stored if setting.options.counting == "stored" else nominal
    return costs


def weight_target(setting: Setting) -> float:
    """Average bits per weight that satisfy every part of the budget.

    Raises:
        InfeasibleBudgetError: the narrowest candidates exceed it; names the nearest feasible.
        UsageError: a size is given, but nominal bits are counted, or a window is.
    """
    budget = setting.study.job.budget
    if budget.size is not None and setting.options.counting == "nominal":
        raise UsageError("size: is about stored bytes; leave counting=nominal out with it")
    if budget.size is not None and setting.options.tolerance is not None:
        raise UsageError("size: is at most so many bytes; leave tolerance out with it")
    limit = byte_limit(
        budget, setting.study.job.denoiser, setting.study.layers, weight_costs(setting)
    )
    if budget.size is None and budget.weight_bits is not None:
        return float(budget.weight_bits)
    target = float(limit.maximum) * 8 / sum(layer.parameters for layer in setting.study.layers)
    # Bytes are whole: so much more buys none, but the quotient may have been rounded down.
    return target * (1 + 1e-12)


def weight_programs(setting: Setting, layers: Mapping[str, Sensitivity]) -> Programs:
    """Programs over the widths of the weights."""
    parameters = {layer.name: layer.parameters for layer in setting.study.layers}
    costs = weight_costs(setting)
    bits = {
        name: {
            width: cost * 8 / parameters[name]
            for width, cost in zip(layers[name].scores, costs[name].values(), strict=True)
        }
        for name in layers
    }
    nominal = setting.options.counting == "nominal"
    return Programs(
        field="weight_bits",
        layers=layers,
        sizes={name: float(size) for name, size in parameters.items()},
        target=weight_target(setting),
        bits=None if nominal else bits,
        tolerance=setting.options.tolerance,
    )


def input_programs(setting: Setting, layers: Mapping[str, Sensitivity]) -> Programs:
    """Programs over the widths of the inputs; protected layers are not among `layers`.

    Raises:
        ModelError: MACs are to be counted, and the model cannot be run to count them.
    """
    if setting.options.activation_cost == "macs":
        sizes = {layer.name: float(layer.macs or 0) for layer in setting.study.layers}
        if not any(sizes.values()):
            raise ModelError(
                f"{setting.study.job.model}: its multiplications cannot be counted; use "
                "activation_cost=bytes"
            )
    else:
        choices = {
            layer.name: setting.choice(layer.name, 8, None) for layer in setting.study.layers
        }
        found = input_sizes(setting.study.job.denoiser, setting.study.graph, choices)
        sizes = {name: float(size) for name, size in found.items()}
    return Programs(
        field="act_bits",
        layers=layers,
        sizes={name: sizes[name] for name in layers},
        target=float(setting.study.job.budget.act_bits),
        tolerance=setting.options.tolerance,
    )
