"""Moments of a layer's inputs, for roundings that know what a weight multiplies."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mezzotint.errors import FormatError


@dataclass(frozen=True, eq=False)
class InputMoments:
    """Averages over the inputs x [k] of a quantizer: E[x xᵀ] and E[x].

    Of a convolution an input is an unfolded window, in the order of the weight's flattened
    columns: k = in / groups · height · width, padding included.

    Attributes:
        blocks: Gram matrices E[x xᵀ], float32 [groups, n, n], of consecutive columns that make up
            all k; empty where only means were gathered.
        mean: E[x], float32 [groups, k].
        count: inputs averaged, the same for every group.
    """

    blocks: tuple[Tensor, ...]
    mean: Tensor
    count: int

    @property
    def groups(self) -> int:
        """Groups of channels that are convolved apart."""
        return len(self.mean)

    @property
    def columns(self) -> int:
        """Weights per output."""
        return self.mean.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes of all matrices and means."""
        return sum(each.nbytes for each in (*self.blocks, self.mean))

    def check(self, rows: int, columns: int, *, grams: bool) -> None:
        """Refuse the moments of another layer than one of a weight [rows, columns].

        Args:
            rows: outputs.
            columns: weights per output.
            grams: whether the matrices are needed, and not the means alone.

        Raises:
            FormatError: they are of another size, lacking, or hold NaN or infinite values.
        """
        if self.columns != columns or rows % self.groups:
            raise FormatError(
                f"moments of {self.groups} group(s) of {self.columns} inputs met a weight of "
                f"{rows} rows of {columns}; they are of another layer"
            )
        sizes = [tuple(block.shape) for block in self.blocks]
        whole = sum(size[-1] for size in sizes) == columns
        square = all(size == (self.groups, size[-1], size[-1]) for size in sizes)
        if grams and not self.blocks:
            raise FormatError("its inputs have means, but no Gram matrices; gather those as well")
        if self.blocks and not (whole and square):
            raise FormatError(
                f"Gram matrices of shapes {sizes} met a weight of {rows} rows of {columns}; they "
                "are of another layer"
            )
        used = (self.mean, *(self.blocks if grams else ()))
        if not all(map(_finite, used)):
            raise FormatError("the moments of its inputs hold NaN or infinite values")


def _finite(tensor: Tensor) -> bool:
    """The sum of finite float32 values is finite in float64, without a mask as large as them."""
    return bool(torch.isfinite(tensor.sum(dtype=torch.float64)))
