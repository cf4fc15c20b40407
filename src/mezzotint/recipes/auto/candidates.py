"""Candidates: the pairs of a weight format and an input format that a layer may take."""

from __future__ import annotations

from collections.abc import Callable

from mezzotint.errors import UsageError
from mezzotint.formats import FLOAT
from mezzotint.plan import NO_ACTIVATION_BITS, Budget, Choice, Structure, activation_name
from mezzotint.recipes.auto.names import is_per_step
from mezzotint.recipes.auto.options import ACT_SHARE, Auto
from mezzotint.runtime import StepScales


def candidate_formats(
    budget: Budget, options: Auto, steps: Callable[[], int]
) -> tuple[Choice, ...]:
    """Every pair of formats that a layer may take, and the layer as it is where it may be.

    Under a latency that is so: a floating layer may be faster on this machine than a packed one.

    Args:
        budget: says how many bits inputs have.
        options: say which formats there are.
        steps: tells how many timesteps the recorded calls are of; asked where inputs may have a
            scale for each.
    """
    weights = [weight for weight in options.formats if weight != FLOAT]
    structures: dict[str, tuple[Structure, ...]] = {
        name: (StepScales(steps()),) if is_per_step(name) else ()
        for name in input_formats(budget, options)
    }
    pairs = [
        Choice(weight, activation, own)
        for activation, own in structures.items()
        for weight in weights
    ]
    if options.floats_weights or budget.latency is not None:
        pairs.append(Choice())
    return tuple(dict.fromkeys(pairs))


def input_formats(budget: Budget, options: Auto) -> tuple[str, ...]:
    """The activation formats that a layer may take.

    Raises:
        UsageError: `act_bits` is no whole number of bits; or inputs have a scale for each timestep,
            under a latency.
    """
    asked = options.inputs or (() if options.activation is None else (options.activation,))
    if budget.latency is not None and any(map(is_per_step, asked)):
        raise UsageError(
            "inputs: profiles know no input with a scale for each timestep; under a latency, take "
            "others, such as int8/token"
        )
    if options.inputs is not None:
        return options.inputs
    usual = options.activation or activation_name(budget.act_bits)
    if budget.latency is not None:  # floating inputs may be slower, but better
        return tuple(dict.fromkeys((usual, FLOAT)))
    if options.activation is not None or usual == FLOAT:
        return (usual,)
    return (usual, f"u{usual}", FLOAT)


def quantized_share(budget: Budget, options: Auto) -> float | None:
    """Least share of the multiply-accumulates with quantized inputs; None for any."""
    if options.act_share is not None:
        return options.act_share
    floating = budget.act_bits == NO_ACTIVATION_BITS or options.inputs == (FLOAT,)
    decided = options.activation is not None or budget.latency is not None
    return None if floating or decided else ACT_SHARE
