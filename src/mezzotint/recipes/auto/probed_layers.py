"""Changes of one layer that probes are asked about, around the floating model or a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mezzotint.measuring import InputCandidate, LayerCandidates
from mezzotint.plan import Choice
from mezzotint.recipes.auto.names import is_smoothed, unsmoothed, weight_name


def around_floating(
    candidates: Sequence[Choice], inputs: Mapping[str, InputCandidate]
) -> LayerCandidates:
    """Every weight of a layer's candidates, in the structures that it has without smoothing.

    Args:
        candidates: of the layer.
        inputs: roundings of its input, by name.
    """
    quantized = [each.with_floating_input for each in candidates if each.quantized]
    weights = dict.fromkeys(weight_name(each) for each in quantized)
    structures = next((unsmoothed(each).structures for each in quantized), ())
    variants = {weight_name(each): each for each in quantized if is_smoothed(each)}
    return LayerCandidates(tuple(weights), inputs, structures, variants)


def around_choice(candidates: Sequence[Choice], choice: Choice) -> LayerCandidates:
    """The weights of a layer's candidates that have the structures of its choice in a plan.

    Those of its input's scales make no difference to them.

    Args:
        candidates: of the layer.
        choice: of the plan.
    """
    quantized = [each.with_floating_input for each in (choice, *candidates) if each.quantized]
    structures = next((each.structures for each in quantized), ())
    alike = [each for each in quantized if each.structures == structures]
    formats = dict.fromkeys(each.weight for each in alike)
    return LayerCandidates(tuple(formats), structures=structures)
