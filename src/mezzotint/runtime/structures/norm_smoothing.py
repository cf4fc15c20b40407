"""Smoothed inputs whose powers of two the norm before the layer takes up: nothing is stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor
from typing_extensions import override

from mezzotint.errors import FormatError
from mezzotint.formats import TensorSpec
from mezzotint.plan import LayerShape, Structure, Tensors, register_structure
from mezzotint.runtime.structures.smoothing import EXPONENT, Smoothing, exponent_spec


@register_structure
@dataclass(frozen=True)
class NormSmoothing(Smoothing):
    """Smoothing by the norm before the layer, whose weight and bias are multiplied by 2^-e_j.

    For a norm whose output is read by layers of the same exponents alone, all of which have this
    structure. No exponent is stored and no input multiplied: what a packed layer is given is
    smoothed already. Where exponents are among the tensors, the layer is that of the floating
    model, whose norm is as it was: its inputs are multiplied as by `Smoothing`. Powers of two round
    nothing, so both compute the same.

    Attributes:
        norm: dotted name of the norm.

    Raises:
        FormatError: `norm` is empty.
    """

    norm: str

    kind = "norm_smoothing"

    def __post_init__(self) -> None:
        if not isinstance(self.norm, str) or not self.norm:
            raise FormatError(f"{self.kind}: norm is {self.norm!r}; expected the name of a norm")

    @property
    @override
    def label(self) -> str:
        return f"input smoothed by {self.norm}"

    @property
    @override
    def alone(self) -> Structure:
        return Smoothing()

    @override
    def refuse(self, inner: Structure) -> str | None:
        if isinstance(inner, Smoothing):
            return "its input is smoothed once; keep one of them"
        return super().refuse(inner)

    @override
    def refuse_outer(self, outer: Structure) -> str | None:
        return (
            f"a norm smooths the whole input of a layer; put {self.kind} first, or take smoothing"
        )

    @override
    def tensors(self, layer: LayerShape) -> Mapping[str, TensorSpec]:
        return {}

    @override
    def calibrated_tensors(self, layer: LayerShape) -> Mapping[str, TensorSpec]:
        return {EXPONENT: exponent_spec(layer)}

    @override
    def join_weights(
        self, weights: Mapping[str, Tensor], layer: LayerShape, tensors: Tensors
    ) -> Tensor:
        if EXPONENT not in tensors:
            return weights["smoothed"]
        return super().join_weights(weights, layer, tensors)

    @override
    def part_inputs(self, x: Tensor, layer: LayerShape, tensors: Tensors) -> Mapping[str, Tensor]:
        if EXPONENT not in tensors:
            return {"smoothed": x}
        return super().part_inputs(x, layer, tensors)

    @override
    def join_inputs(
        self, x: Tensor, inputs: Mapping[str, Tensor], layer: LayerShape, tensors: Tensors
    ) -> Tensor:
        if EXPONENT not in tensors:
            return inputs["smoothed"]
        return super().join_inputs(x, inputs, layer, tensors)
