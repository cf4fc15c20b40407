"""Kernels and arithmetic of packed layers, for reports."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from mezzotint.plan import Choice
from mezzotint.runtime.convert import packed_layers
from mezzotint.runtime.part import QuantizedPart

_BETWEEN = ", "


@dataclass(frozen=True)
class Execution:
    """Kernel and arithmetic of one packed layer on its present device.

    Attributes:
        layer: its name.
        choice: formats and structures.
        kernel: name; the different ones of its parts, in their order, with commas between.
        arithmetic: of the products, `int8` or `float`; likewise.
        reason: why a preferred kernel did not take it; None where it did.
        rounds_inputs: whether floating products are those of rounded inputs, where the choice
            has an activation format.
    """

    layer: str
    choice: Choice
    kernel: str
    arithmetic: str
    reason: str | None
    rounds_inputs: bool = True

    @property
    def products(self) -> str:
        """Arithmetic for people: the inputs of products that are not of their kind are named."""
        return _BETWEEN.join(map(self._product, self.arithmetic.split(_BETWEEN)))

    def _product(self, arithmetic: str) -> str:
        activation = self.choice.activation_format
        if activation is None:
            return arithmetic
        if arithmetic == "float":
            return f"float, inputs rounded to {activation}" if self.rounds_inputs else "float"
        if activation.width == 8:
            return arithmetic
        return f"{activation.width}-bit inputs in 8-bit products"

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return vars(self) | {"choice": self.choice.to_dict(), "products": self.products}


def executions(module: nn.Module) -> tuple[Execution, ...]:
    """The kernel of every packed layer, and why a preferred one did not take it."""
    return tuple(
        _execution(name, layer.choice, layer.parts) for name, layer in packed_layers(module).items()
    )


def _execution(name: str, choice: Choice, parts: Iterable[QuantizedPart]) -> Execution:
    selections = [part.selection for part in parts]
    reasons = [each.reason for each in selections if each.reason is not None]
    return Execution(
        name,
        choice,
        different(each.kernel.name for each in selections),
        different(each.kernel.arithmetic for each in selections),
        "; ".join(dict.fromkeys(reasons)) or None,
    )


def different(words: Iterable[str]) -> str:
    """The different ones among what is told of a layer's parts, in their order."""
    return _BETWEEN.join(dict.fromkeys(words))
