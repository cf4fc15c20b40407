"""Layers of structures, computed as their packed form does, from parts that are still floating."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from torch import Tensor

from mezzotint.plan import LayerShape, Structure, Tensors
from mezzotint.runtime.composition import joined_output, part_weights

PartOutput: TypeAlias = Callable[[int, Tensor, Tensor, Tensor | None], Tensor]
"""Output of a quantizer's layer, from its index, its input, its weight and its bias."""


@dataclass(frozen=True, eq=False)
class FloatingParts:
    """Forward pass of a structured layer; gradients reach the weight through its parts.

    Attributes:
        structures: outermost first; none for a layer of one quantizer.
        layer: its shape.
        tensors: of the structures, as `own_tensors` gives them.
        output: computes each part; its index is that of its input range.
    """

    structures: tuple[Structure, ...]
    layer: LayerShape
    tensors: Tensors
    output: PartOutput

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The layer's output of `x`.

        Raises:
            PlanError: a structure does not go with such an input.
            FormatError: a structure's tensor is lacking.
        """
        weights = part_weights(weight, self.structures, self.layer, self.tensors)
        outputs = [partial(self._of_part, *each) for each in enumerate(weights)]
        return joined_output(x, outputs, bias, self.structures, self.layer, self.tensors)

    def _of_part(self, index: int, weight: Tensor, x: Tensor, bias: Tensor | None) -> Tensor:
        return self.output(index, x, weight, bias)
