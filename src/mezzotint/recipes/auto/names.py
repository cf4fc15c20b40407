"""Names of weights and inputs among the candidates of one layer."""

from __future__ import annotations

from mezzotint.formats import parse_activation_format
from mezzotint.plan import Choice
from mezzotint.runtime import Smoothing


def is_smoothed(choice: Choice) -> bool:
    """True where the input of a choice is smoothed."""
    return any(isinstance(each, Smoothing) for each in choice.structures)


def unsmoothed(choice: Choice) -> Choice:
    """The same formats and structures, but for smoothing of the input."""
    kept = (each for each in choice.structures if not isinstance(each, Smoothing))
    return choice.with_structures(*kept)


def is_per_step(activation: str) -> bool:
    """True where inputs of a format have a scale for each timestep."""
    found = parse_activation_format(activation)
    return found is not None and found.per_step


def weight_name(choice: Choice) -> str:
    """Name of a weight among those of one layer: its formats, and whether it is smoothed."""
    return f"{choice.weight_label}{_suffix(choice)}"


def input_name(choice: Choice) -> str:
    """Name of an input among those of one layer: its format, and whether it is smoothed."""
    return f"{choice.activation}{_suffix(choice)}"


def _suffix(choice: Choice) -> str:
    return "+smoothing" if is_smoothed(choice) else ""
