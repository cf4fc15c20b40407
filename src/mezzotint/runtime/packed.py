"""Common base of all packed layers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor, nn
from typing_extensions import override

from mezzotint.errors import FormatError
from mezzotint.formats import Shape
from mezzotint.plan import Choice, Encoding, Tensors
from mezzotint.rounding import InputMoments
from mezzotint.runtime.lazy_weight import LazyWeight
from mezzotint.runtime.part import QuantizedPart


@dataclass(frozen=True)
class InputRange:
    """Calibrated lowest and highest input of a layer, or of a part of it, for static formats."""

    low: float
    high: float


@dataclass(frozen=True, eq=False)
class GridValues:
    """A weight, or a part of one, that training has put on its grid; it is not rounded again.

    Attributes:
        values: floating, of the shape of the part's weight.
        parameters: parameters of the grid that training has changed, such as scales, as
            `Grid.with_parameters` takes them; the others are as the plan's search finds them.
        order: where each output channel of a mixed format stands among the stored rows, int64
            [out_channels], as it was when training began; None for the order that the plan names.
    """

    values: Tensor
    parameters: Tensors = field(default_factory=dict)
    order: Tensor | None = None


@dataclass(frozen=True, eq=False)
class PartCalibration:
    """Calibrated values of one quantizer, which decide its stored bytes beside plan and weight.

    Attributes:
        range: of its input, where that is static, see `check_input_ranges`.
        values: its weight, where that lies on the grid already.
        moments: of its input, where the encoding needs them.
        encoded: its weight as it is stored, by the names of the format's layout, where it was
            encoded before.
    """

    range: InputRange | None = None
    values: GridValues | None = None
    moments: InputMoments | None = None
    encoded: Tensors | None = None


def check_input_ranges(choice: Choice, ranges: Sequence[InputRange]) -> None:
    """Raise FormatError where a static activation format lacks a calibrated range per part."""
    if not choice.static or len(ranges) == choice.parts:
        return
    each = "" if choice.parts == 1 else f" for each of its {choice.parts} parts"
    raise FormatError(
        f"{choice.activation} needs a calibrated input range{each}: apply the plan to a pipeline, "
        "which calibrates, or take a dynamic format such as 'int8/token'"
    )


def refuse_tensors(names: Collection[str]) -> None:
    """Raise FormatError where there are calibrated tensors that no structure has."""
    if names:
        raise FormatError(
            f"there are calibrated tensors for it that none of its structures has: "
            f"{', '.join(sorted(names))}; take those of a calibration after this plan"
        )


class PackedLayer(nn.Module, ABC):
    """Layer that stands for a Linear or Conv2d whose weight is packed.

    Either a `QuantLayer`, or a `StructuredLayer` made of such parts. Everything stored is an
    integer tensor, so casting the model leaves it alone, but for the bias: a floating parameter
    named as in the layer replaced.

    Concrete classes are `nn.Linear` or `nn.Conv2d` as well, with their attributes, so that
    libraries treat them as such.

    Attributes:
        weight_shape: shape of the weight replaced.
        choice: formats and structures.
        weight_dtype: dtype of `weight`: that of the layer replaced, and of what `to` casts it to.
    """

    weight_dtype: torch.dtype

    def __init__(self, weight_shape: Shape, choice: Choice, bias: Tensor | None) -> None:
        # Past nn.Linear or nn.Conv2d, which would allocate a weight.
        nn.Module.__init__(self)
        self.weight_shape = weight_shape
        self.weight_dtype = torch.get_default_dtype() if bias is None else bias.dtype
        self.choice = choice
        self.bias = (
            None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)
        )

    @property
    @abstractmethod
    def parts(self) -> tuple[QuantizedPart, ...]:
        """The quantized layers that compute it, by order of input channels."""

    @abstractmethod
    def load_weight(
        self,
        weight: Tensor,
        encoding: Encoding,
        calibrations: Sequence[PartCalibration],
    ) -> None:
        """Quantize and pack `weight`, and store the input range of each part where it is static.

        Args:
            weight: floating, of `weight_shape`.
            encoding: how it is rounded.
            calibrations: one for each part.

        Raises:
            FormatError: the weight holds NaN or infinity, trained values lie on no grid of the
                format, or moments are of another layer.
        """

    @property
    def weight(self) -> Tensor:
        """The dequantized weight for libraries that ask for one; computed where it is read.

        While the model is compiled it is an ordinary tensor, which the compiler can follow; it
        leaves out what nobody reads.
        """
        if torch.compiler.is_compiling():
            return self.dequantized_weight(self.weight_dtype)
        return LazyWeight(
            self.weight_shape,
            self.weight_dtype,
            self.parts[0].weight_device,
            lambda: self.dequantized_weight(self.weight_dtype),
        )

    @override
    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or cast, as all modules do; the dtype of `weight` follows."""
        self.weight_dtype = fn(torch.empty(0, dtype=self.weight_dtype)).dtype
        return super()._apply(fn, recurse)  # type: ignore[no-any-return,no-untyped-call]

    def load_tensors(self, tensors: Tensors) -> None:
        """Store what the layer's structures have calibrated; comes before `load_weight`.

        Args:
            tensors: name within the layer → tensor as it is stored; a layer without structures
                has none.

        Raises:
            FormatError: there is a tensor that no structure of the layer has.
        """
        refuse_tensors(tensors)

    @abstractmethod
    def dequantized_weight(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The weight as the kernels see it, of `weight_shape`."""

    def to_float(self, dtype: torch.dtype = torch.float32) -> nn.Module:
        """A stock layer with the dequantized weight, in the dtype of the bias, or else `dtype`.

        What structures store beside the weight is forgotten: constant tokens are computed from the
        dequantized weight.
        """
        dtype = dtype if self.bias is None else self.bias.dtype
        layer = self.parts[0].stock(self.dequantized_weight(dtype), self.bias)
        return layer.train(self.training)

    @override
    def extra_repr(self) -> str:
        return f"{tuple(self.weight_shape)}, {self.choice}"
