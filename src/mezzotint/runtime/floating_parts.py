"""Layers of structures, computed as their packed form does, from parts that are still floating."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from torch import Tensor

from mezzotint.plan import LayerShape, Structure, Tensors
from mezzotint.runtime.composition import at_top, under

PartOutput: TypeAlias = Callable[[int, Tensor, Tensor, Tensor | None], Tensor]
"""Output of a quantizer's layer, from its index, its input, its weight and its bias."""


@dataclass(frozen=True, eq=False)
class FloatingParts:
    """Forward pass of a structured layer; gradients reach the weight through its parts.

    Attributes:
        structures: outermost first; none for a layer of one quantizer.
        layer: its shape.
        tensors: of the structures, as `own_tensors` gives them.
        output: computes each part.
        first: index of the first quantizer inside, in the order of input ranges.
    """

    structures: tuple[Structure, ...]
    layer: LayerShape
    tensors: Tensors
    output: PartOutput
    first: int = 0

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The layer's output of `x`.

        Raises:
            PlanError: a structure does not go with such an input.
            FormatError: a structure's tensor is lacking.
        """
        if not self.structures:
            return self.output(self.first, x, weight, bias)
        outer, inner, own = self.structures[0], self.structures[1:], at_top(self.tensors)
        weights = outer.part_weights(weight, self.layer, own)
        shapes = outer.part_shapes(self.layer)
        each = math.prod(len(structure.part_names) for structure in inner)
        parts = {}
        for index, name in enumerate(outer.part_names):
            part = FloatingParts(
                inner,
                shapes[name],
                under(self.tensors, name),
                self.output,
                self.first + index * each,
            )
            parts[name] = partial(part.forward, weight=weights[name], bias=None)
        return outer.forward(x, parts, self.layer, own, bias)
