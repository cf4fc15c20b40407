"""Inputs that 8 bits are too few for: which stay floating, and which ruin a plan all the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mezzotint.calibration import InputSpread
from mezzotint.formats import FLOAT
from mezzotint.plan import Choice
from mezzotint.recipes.auto.losses import Losses

DOMINATES = 4.0
"""A plan this many times as noisy as with floating inputs (6 dB) comes with a warning."""

_NAMED = 5


@dataclass(frozen=True)
class InputNoise:
    """Loss of a plan with its inputs rounded, and with floating ones.

    Attributes:
        with_inputs: loss of the plan.
        without: of the same weights with floating inputs.
    """

    with_inputs: float
    without: float

    @property
    def dominates(self) -> bool:
        """True where inputs lose more than a plan should."""
        return self.with_inputs > DOMINATES * self.without

    @property
    def ratio(self) -> float:
        """The plan's loss in those of the same weights with floating inputs."""
        return self.with_inputs / max(self.without, 1e-30)


def floating_reasons(
    choices: Mapping[str, Choice], losses: Losses, spreads: Mapping[str, InputSpread]
) -> dict[str, str]:
    """Layer → why its input stays floating, where the layer could have had it quantized."""
    return {
        name: f"input stays floating: {_peak(spreads[name])}"
        for name, choice in choices.items()
        if choice.quantized and choice.activation == FLOAT and _quantizable(losses, name)
    }


def warning(
    noise: InputNoise,
    choices: Mapping[str, Choice],
    losses: Losses,
    spreads: Mapping[str, InputSpread],
) -> str:
    """A warning that names the layers whose inputs cost most, and what to do."""
    costs = {name: losses.input(name, choice) for name, choice in choices.items()}
    worst = [name for name in sorted(costs, key=lambda n: -costs[n]) if costs[name] > 0][:_NAMED]
    named = ", ".join(f"{name} ({_peak(spreads[name])})" for name in worst)
    return (
        f"warning: quantized inputs make the plan {noise.ratio:.3g} times as noisy as the same "
        f"weights with floating inputs; most comes from {named}; leave more inputs floating with a "
        "smaller --act-share, or all of them with --act-bits 16"
    )


def _quantizable(losses: Losses, layer: str) -> bool:
    return any(name != FLOAT for name in losses.inputs[layer])


def _peak(spread: InputSpread) -> str:
    return f"peak of {spread.ratio:.3g} standard deviations"
