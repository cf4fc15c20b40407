"""What all packed layers have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn
from typing_extensions import override

from mezzotint.errors import FormatError
from mezzotint.formats import MINMAX, RangeSearch, Shape
from mezzotint.plan import Choice
from mezzotint.runtime.lazy_weight import LazyWeight

if TYPE_CHECKING:
    from mezzotint.runtime.layer import QuantLayer


@dataclass(frozen=True)
class InputRange:
    """Calibrated lowest and highest input of a layer, or of a part of it, for static formats."""

    low: float
    high: float


def check_input_ranges(choice: Choice, ranges: Sequence[InputRange]) -> None:
    """Raise FormatError where a static activation format lacks a calibrated range per part."""
    if not choice.static or len(ranges) == choice.parts:
        return
    each = "" if choice.parts == 1 else f" for each of its {choice.parts} parts"
    raise FormatError(
        f"{choice.activation} needs a calibrated input range{each}: apply the plan to a pipeline, "
        "which calibrates, or take a dynamic format such as 'int8/token'"
    )


class PackedLayer(nn.Module, ABC):
    """What stands for a Linear or Conv2d whose weight is packed.

    Either a `QuantLayer`, or a layer made of such parts. Everything stored is an integer tensor,
    so casting the model leaves it alone, but for the bias: a floating parameter named as in the
    layer replaced.

    Concrete classes are `nn.Linear` or `nn.Conv2d` as well, with their attributes, so that
    libraries treat them as such.

    Attributes:
        weight_shape: shape of the weight replaced.
        choice: how it is stored and computed.
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
    def parts(self) -> tuple[QuantLayer, ...]:
        """The quantized layers that compute it, by order of input channels.

        They have the same formats, hence the same kernel.
        """

    @abstractmethod
    def load_weight(
        self, weight: Tensor, search: RangeSearch = MINMAX, ranges: Sequence[InputRange] = ()
    ) -> None:
        """Quantize and pack `weight`, and store the input range of each part where it is static.

        Raises:
            FormatError: the weight holds NaN or infinity, or a range is missing.
        """

    @property
    def weight(self) -> LazyWeight:
        """The dequantized weight for libraries that ask for one; computed where it is read."""
        return LazyWeight(
            self.weight_shape,
            self.weight_dtype,
            self.device,
            lambda: self.dequantized_weight(self.weight_dtype),
        )

    @property
    def device(self) -> torch.device:
        """Device of the stored tensors."""
        return self.parts[0].device

    @override
    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or cast, as all modules do; the dtype of `weight` follows."""
        self.weight_dtype = fn(torch.empty(0, dtype=self.weight_dtype)).dtype
        return super()._apply(fn, recurse)  # type: ignore[no-any-return,no-untyped-call]

    def dequantized_weight(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The weight as the kernels see it, of `weight_shape`."""
        return torch.cat([part.dequantized_weight(dtype) for part in self.parts], 1)

    def to_float(self, dtype: torch.dtype = torch.float32) -> nn.Module:
        """A stock layer with the dequantized weight, in the dtype of the bias, or else `dtype`.

        Constant tokens are forgotten: the stock layer computes them from the dequantized weight.
        """
        dtype = dtype if self.bias is None else self.bias.dtype
        layer = self.parts[0].stock(self.dequantized_weight(dtype), self.bias)
        return layer.train(self.training)

    @override
    def extra_repr(self) -> str:
        return f"{tuple(self.weight_shape)}, {self.choice}"
