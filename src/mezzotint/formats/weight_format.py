"""The interface of weight formats."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mezzotint.errors import FormatError
from mezzotint.formats.forms import Segment, decoded
from mezzotint.formats.grid import Grid
from mezzotint.formats.packing import pack
from mezzotint.formats.ranges import MINMAX, RangeSearch

Shape = tuple[int, ...]

#: Codes of a weight: uint8 [out_channels, k], or consecutive rows of it in pieces.
Codes = Tensor | Iterable[Tensor]


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


class WeightFormat(ABC):
    """Format of one layer's stored weight.

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
    def grid(self, weight: Tensor, search: RangeSearch = MINMAX) -> Grid:
        """The values that each weight can take: chooses scales or levels, and rounds nothing.

        Scales and levels are as they will be stored.

        Raises:
            FormatError: the weight holds NaN or infinity, or has fewer than two dimensions.
        """

    @abstractmethod
    def store(self, grid: Grid, codes: Codes) -> dict[str, Tensor]:
        """Pack the chosen codes; the result matches the layout of a weight of the grid's shape.

        Args:
            grid: of this format, from `grid` or with other parameters.
            codes: uint8 [out_channels, k], at once, or as consecutive rows in pieces.

        Raises:
            FormatError: the grid or a code is none of this format.
        """

    @abstractmethod
    def segments(self, tensors: Mapping[str, Tensor], shape: Shape) -> tuple[Segment, ...]:
        """The stored rows, from first to last, in the canonical forms that kernels know."""

    @abstractmethod
    def check(self, tensors: Mapping[str, Tensor]) -> None:
        """Refuse stored tensors whose values no `encode` can have written (cheap; for loading).

        Raises:
            FormatError: naming the tensor.
        """

    def encode(self, weight: Tensor, search: RangeSearch = MINMAX) -> dict[str, Tensor]:
        """Round each weight to the nearest value of its grid, and pack.

        Raises:
            FormatError: as `grid`.
        """
        grid = self.grid(weight, search)
        return self.store(grid, grid.nearest_rows(weight))

    def store_values(self, grid: Grid, weight: Tensor) -> dict[str, Tensor]:
        """Pack a weight whose values lie on the grid already; none is rounded.

        Raises:
            FormatError: a value is not on the grid.
        """
        return self.store(grid, grid.codes_of_rows(weight))

    def decode(self, tensors: Mapping[str, Tensor], shape: Shape) -> Tensor:
        """Unpack and dequantize to float32 of `shape`."""
        stored = decoded(self.segments(tensors, shape))
        order = self.order(tensors)
        return (stored if order is None else stored.index_select(0, order)).reshape(shape)

    def stored_grid(self, tensors: Mapping[str, Tensor], shape: Shape) -> Grid:
        """The grid that a stored weight lies on."""
        (segment,) = self.segments(tensors, shape)
        return segment.grid

    def forms(self, shape: Shape) -> tuple[Segment, ...]:
        """The segments of any weight of `shape`, without values: tensors on the meta device."""
        specs = self.layout(shape).items()
        return self.segments(
            {name: torch.empty(s.shape, dtype=s.dtype, device="meta") for name, s in specs}, shape
        )

    def order(self, tensors: Mapping[str, Tensor]) -> Tensor | None:
        """Position of each output channel among the stored rows: int64 [out_channels].

        `y = y_stored.index_select(channel_dim, order)`. None where rows are stored in the order of
        the output channels.
        """
        return None

    def stored_bytes(self, shape: Shape) -> int:
        """Bytes of all stored tensors, scales and zero points included."""
        return sum(spec.nbytes for spec in self.layout(shape).values())

    def roundtrip(self, weight: Tensor, search: RangeSearch = MINMAX) -> Tensor:
        """Encode the weight and decode it again, float32."""
        return self.decode(self.encode(weight, search), tuple(weight.shape))

    def __str__(self) -> str:
        return self.name


def code_pieces(codes: Codes, shape: tuple[int, int]) -> Iterator[Tensor]:
    """Pieces of consecutive rows of codes that make a matrix of `shape`.

    Raises:
        FormatError: they make another shape.
    """
    rows = 0
    for piece in (codes,) if isinstance(codes, Tensor) else codes:
        if piece.ndim != 2 or piece.shape[1] != shape[1]:
            raise FormatError(
                f"codes of shape {tuple(piece.shape)} met a grid of {shape[1]} columns"
            )
        rows += len(piece)
        yield piece
    if rows != shape[0]:
        raise FormatError(f"codes of {rows} rows met a grid of {shape[0]}")


def packed(codes: Tensor, bits: int) -> Tensor:
    """Pack codes, uint8 [rows, k].

    Raises:
        FormatError: a code does not fit `bits`.
    """
    if bits < 8 and codes.numel() and int(codes.amax()) >= 2**bits:
        raise FormatError(f"codes hold values that do not fit {bits} bits")
    return pack(codes, bits)
