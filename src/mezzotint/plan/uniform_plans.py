"""The uniform plan: one choice for all layers, no data needed. The baseline of every figure."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from mezzotint._patterns import matches
from mezzotint.errors import UsageError
from mezzotint.formats import FLOAT
from mezzotint.plan.choice import Choice
from mezzotint.plan.plan import Plan

NO_WEIGHT_BITS = 16
NO_ACTIVATION_BITS = 16


def activation_name(act_bits: float) -> str:
    """The default activation format of a bit-width: per token, or none at 16.

    Raises:
        UsageError: the width is neither 16 nor a whole number from 2 to 8.
    """
    if act_bits == NO_ACTIVATION_BITS:
        return FLOAT
    if act_bits not in range(2, 9):
        raise UsageError(f"act_bits is {act_bits}; expected 8 (or 2 to 7), or 16 for none")
    return f"int{int(act_bits)}/token"


def uniform_choice(weight_bits: int, act_bits: int) -> Choice:
    """`weight_bits` per output channel, symmetric; 16 leaves the layer as it is.

    Raises:
        UsageError: a width is out of its domain, or activations alone would be quantized.
    """
    activation = activation_name(act_bits)
    if weight_bits == NO_WEIGHT_BITS and activation == FLOAT:
        return Choice()
    if weight_bits == NO_WEIGHT_BITS:
        raise UsageError(
            f"act_bits {act_bits} goes with quantized weights; give weight_bits 1 to 8, "
            "or act_bits 16 to quantize nothing"
        )
    if not 1 <= weight_bits <= 8:
        raise UsageError(f"weight_bits is {weight_bits}; expected 1 to 8, or 16 for none")
    return Choice(f"int{weight_bits}/channel", activation)


def uniform_plan(
    module: nn.Module,
    *,
    weight_bits: int,
    act_bits: int = NO_ACTIVATION_BITS,
    exclude: Sequence[str] = (),
    model: str | None = None,
) -> Plan:
    """The same choice for every Linear and Conv2d that no pattern of `exclude` names.

    Raises:
        UsageError: a width is out of its domain, or a pattern names no layer.
    """
    choice = uniform_choice(weight_bits, act_bits)
    names = [n for n, m in module.named_modules() if type(m) in (nn.Linear, nn.Conv2d)]
    for pattern in exclude:
        if not any(matches(name, pattern) for name in names):
            raise UsageError(f"{pattern!r} names no Linear or Conv2d of {type(module).__name__}")
    excluded = {name for name in names if any(matches(name, pattern) for pattern in exclude)}
    return Plan(
        choices={name: Choice() if name in excluded else choice for name in names},
        model=model,
        reasons=dict.fromkeys(sorted(excluded), "excluded by name"),
        context={"recipe": "uniform", "weight_bits": weight_bits, "act_bits": act_bits},
    )
