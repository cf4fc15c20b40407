"""Smoothed inputs of a plan that norms can smooth without a byte."""

from __future__ import annotations

from collections.abc import Mapping

from mezzotint.models import Graph
from mezzotint.plan import Choice
from mezzotint.runtime import NormSmoothing, Smoothing


def smoothed_by_norms(choices: Mapping[str, Choice], graph: Graph) -> dict[str, Choice]:
    """The choices; where all that read a norm's output are smoothed, the norm does it.

    Layers that a norm cannot serve keep their exponents: those behind an activation or a
    modulation, behind a norm without weights, or whose siblings are not all smoothed. They compute
    the same either way.

    Args:
        choices: of all layers.
        graph: of the denoiser.
    """
    found = dict(choices)
    for norm, layers in graph.norm_siblings.items():
        if all(_smooths_first(choices.get(layer, Choice())) for layer in layers):
            for layer in layers:
                _, *inner = choices[layer].structures
                found[layer] = choices[layer].with_structures(NormSmoothing(norm), *inner)
    return found


def _smooths_first(choice: Choice) -> bool:
    """True where smoothing is what happens to the whole input."""
    return choice.structures[:1] == (Smoothing(),)
