"""Losses of candidates: what a weight's rounding costs, and what an input's adds to it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from mezzotint.formats import FLOAT
from mezzotint.plan import Choice
from mezzotint.recipes.auto.names import input_name, weight_name

ByFormat = Mapping[str, Mapping[str, float]]
"""Layer → name of a weight or input → loss of that alone, all else floating."""


@dataclass(frozen=True)
class Losses:
    """Loss of every layer's weight and input in every format, each with all else floating.

    Attributes:
        weights: layer → `weight_name` → loss.
        inputs: layer → `input_name` → loss; at the best clip, where it is static.
    """

    weights: ByFormat
    inputs: ByFormat

    def weight(self, layer: str, choice: Choice) -> float:
        """Loss of the layer's weight under a choice; 0 where it stays floating."""
        return self.weights[layer][weight_name(choice)] if choice.quantized else 0.0

    def input(self, layer: str, choice: Choice) -> float:
        """Loss of the layer's input under a choice; 0 where it stays floating."""
        return 0.0 if choice.activation == FLOAT else self.inputs[layer][input_name(choice)]

    def of(self, layer: str, choice: Choice) -> float:
        """Loss of a candidate: independent errors add up."""
        return self.weight(layer, choice) + self.input(layer, choice)

    def of_format(self, layer: str, name: str, *, of_input: bool) -> float:
        """Loss of one name, of a layer's input or of its weight."""
        return (self.inputs if of_input else self.weights)[layer][name]

    def of_plan(self, choices: Mapping[str, Choice]) -> float:
        """Loss of a whole plan."""
        return math.fsum(self.of(name, choice) for name, choice in choices.items())

    def with_measured(self, weights: ByFormat, inputs: ByFormat) -> Losses:
        """These losses, some of them replaced by others."""
        return Losses(_replaced(self.weights, weights), _replaced(self.inputs, inputs))

    def where_unchanged(self, before: Losses, now: Losses) -> Losses:
        """These losses, but those of `now` wherever they differ from those of `before`."""
        return Losses(
            _where_unchanged(self.weights, before.weights, now.weights),
            _where_unchanged(self.inputs, before.inputs, now.inputs),
        )


def _where_unchanged(own: ByFormat, before: ByFormat, now: ByFormat) -> ByFormat:
    return {
        name: {
            key: loss if now[name][key] == before[name][key] else now[name][key]
            for key, loss in each.items()
        }
        for name, each in own.items()
    }


def _replaced(before: ByFormat, now: ByFormat) -> ByFormat:
    return {name: {**each, **now.get(name, {})} for name, each in before.items()}
