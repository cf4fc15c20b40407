"""What every weight format offers to the rest of the program."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mezzotint.errors import FormatError

Shape = tuple[int, ...]


@dataclass(frozen=True)
class TensorSpec:
    """Shape and dtype of one stored tensor."""

    shape: Shape
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Bytes it takes."""
        return math.prod(self.shape) * self.dtype.itemsize

    @classmethod
    def of(cls, tensor: Tensor) -> TensorSpec:
        """The shape and dtype of `tensor`."""
        return cls(tuple(tensor.shape), tensor.dtype)

    def zeros(self) -> Tensor:
        """Such a tensor, on the device of the context."""
        return torch.zeros(self.shape, dtype=self.dtype)


@dataclass(frozen=True)
class RangeSearch:
    """How clipping ranges are chosen: the ratio of the full range that minimises Σ|w - ŵ|^p.

    `steps` ratios are tried from 1 down to `lowest`; one step is plain min-max. MPQ-DM searches 80
    steps with p = 2.4; Qua²SeDiMo ten ratios with the same p.
    """

    steps: int = 1
    lowest: float = 0.2
    power: float = 2.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise FormatError(f"steps is {self.steps}; a range search takes 1 (min-max) or more")
        if not 0 < self.lowest <= 1:
            raise FormatError(f"lowest is {self.lowest}; expected a ratio above 0 and at most 1")
        if not 0 < self.power < math.inf:
            raise FormatError(f"power is {self.power}; expected a positive number")

    @property
    def ratios(self) -> tuple[float, ...]:
        """Every ratio tried, the full range first."""
        if self.steps == 1:
            return (1.0,)
        stride = (1.0 - self.lowest) / (self.steps - 1)
        return tuple(1.0 - stride * step for step in range(self.steps))


MINMAX = RangeSearch()
MSE = RangeSearch(steps=40)


def check_finite(weight: Tensor) -> None:
    """Raise FormatError where `weight` holds NaN or infinity."""
    # The extremes tell, without temporaries as large as the weight: NaN passes into both.
    low, high = weight.detach().aminmax() if weight.numel() else (weight.new_zeros(1),) * 2
    if not bool((torch.isfinite(low) & torch.isfinite(high)).all()):
        raise FormatError("the weight holds NaN or infinite values and cannot be quantized")


def matrix_shape(shape: Shape) -> tuple[int, int]:
    """Rows and columns of a weight flattened to [out_channels, k].

    Raises:
        FormatError: it has fewer than two dimensions, or none of its weights.
    """
    if len(shape) < 2 or math.prod(shape) == 0:
        raise FormatError(
            f"a weight of shape {tuple(shape)} cannot be quantized: it needs two or more "
            "dimensions, none of them empty"
        )
    return shape[0], math.prod(shape[1:])


@dataclass(frozen=True)
class Segment:
    """Consecutive stored rows of one plain format.

    Attributes:
        format: of all its rows; it has a single segment, itself.
        tensors: as the format lays out a weight of `shape`; views of what is stored, no copies.
        shape: of the weight that these rows make.
    """

    format: WeightFormat
    tensors: Mapping[str, Tensor]
    shape: Shape


class WeightFormat(ABC):
    """How the weight of one layer is stored.

    Weights are matrices [out_channels, …] in whatever further dimensions; a format sees them
    flattened to [out_channels, k].
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """Canonical name; `parse_weight_format(name)` gives an equal format."""

    @property
    @abstractmethod
    def bits(self) -> float:
        """Nominal bits per weight, without scales."""

    @abstractmethod
    def layout(self, shape: Shape) -> Mapping[str, TensorSpec]:
        """Every tensor that a weight of `shape` is stored as."""

    @abstractmethod
    def encode(self, weight: Tensor, search: RangeSearch = MINMAX) -> dict[str, Tensor]:
        """Quantize and pack; the result matches `layout(weight.shape)`.

        Raises:
            FormatError: the weight holds NaN or infinity, or has fewer than two dimensions.
        """

    @abstractmethod
    def decode(self, tensors: Mapping[str, Tensor], shape: Shape) -> Tensor:
        """Unpack and dequantize to float32 of `shape`."""

    @abstractmethod
    def check(self, tensors: Mapping[str, Tensor]) -> None:
        """Refuse stored tensors whose values no `encode` can have written (cheap; for loading).

        Raises:
            FormatError: naming the tensor.
        """

    def segments(self, tensors: Mapping[str, Tensor], shape: Shape) -> tuple[Segment, ...]:
        """The stored rows, from first to last, in plain formats that kernels know.

        A format that is plain itself is one segment; one that composes others overrides this.
        """
        return (Segment(self, tensors, shape),)

    def order(self, tensors: Mapping[str, Tensor]) -> Tensor | None:
        """Where each output channel stands among the stored rows: int64 [out_channels].

        `y = y_stored.index_select(channel_dim, order)`. None where rows are stored in the order of
        the output channels.
        """
        return None

    def stored_bytes(self, shape: Shape) -> int:
        """Bytes of all stored tensors, scales and zero points included."""
        return sum(spec.nbytes for spec in self.layout(shape).values())

    def roundtrip(self, weight: Tensor, search: RangeSearch = MINMAX) -> Tensor:
        """What the stored weight is worth: `decode(encode(weight))`, float32."""
        return self.decode(self.encode(weight, search), tuple(weight.shape))

    def __str__(self) -> str:
        return self.name
