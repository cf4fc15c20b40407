"""K-means quantization: each weight is one of a few levels that lie where the weights do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from typing_extensions import override

from mezzotint.errors import FormatError
from mezzotint.formats.base import (
    MINMAX,
    RangeSearch,
    Shape,
    TensorSpec,
    WeightFormat,
    check_finite,
    matrix_shape,
)
from mezzotint.formats.bitcast import as_bits, from_bits
from mezzotint.formats.chunks import row_chunks
from mezzotint.formats.kmeans import borders, kmeans
from mezzotint.formats.packing import pack, packed_width, unpack
from mezzotint.formats.registry import NUMBER, register_weight_format


@dataclass(frozen=True)
class CodebookFormat(WeightFormat):
    """w ≈ codebook[code]: 2^width levels per output channel (`kmeans4/channel`) or per tensor.

    Qua²SeDiMo (arXiv 2412.14628): K-Means C and K-Means A. Levels are found by Lloyd's algorithm
    and stored ascending in bfloat16, 16 bits each as the paper counts. bfloat16 has float32's
    range, so no scale is needed; a level is off by 1/256 of itself at most, and codes are computed
    from the levels as stored. Against exact levels the squared error of emoji-turbo's weights grows
    by 0.04% at 4 bits and 1% at 6. Zero is not exact unless the weights hold it often.
    """

    width: int
    granularity: Literal["tensor", "channel"] = "channel"

    def __post_init__(self) -> None:
        if not 1 <= self.width <= 8:
            raise FormatError(f"bits is {self.width}; a codebook format has 1 to 8")

    @property
    @override
    def name(self) -> str:
        return f"kmeans{self.width}/{self.granularity}"

    @property
    @override
    def bits(self) -> float:
        return float(self.width)

    @override
    def layout(self, shape: Shape) -> Mapping[str, TensorSpec]:
        rows, columns = matrix_shape(shape)
        books = rows if self.granularity == "channel" else 1
        return {
            "codes": TensorSpec((rows, packed_width(columns, self.width)), torch.uint8),
            "codebook": TensorSpec((books, 2**self.width), torch.int16),
        }

    @override
    def encode(self, weight: Tensor, search: RangeSearch = MINMAX) -> dict[str, Tensor]:
        """As `WeightFormat.encode`; there is no range to clip, so `search` changes nothing.

        Takes about 24 bytes per weight of the largest codebook while it runs.
        """
        matrix = weight.detach().reshape(matrix_shape(tuple(weight.shape))).float().contiguous()
        check_finite(matrix)
        codebook = self._codebook(matrix)
        between = borders(codebook)
        codes = []
        for rows in row_chunks(*matrix.shape):
            edges = between[rows] if self.granularity == "channel" else between[0]
            index = torch.searchsorted(edges, matrix[rows], out_int32=True)
            codes.append(pack(index.to(torch.uint8), self.width))
        return {"codes": torch.cat(codes), "codebook": as_bits(codebook)}

    def codes(self, tensors: Mapping[str, Tensor], shape: Shape) -> Tensor:
        """Indices of levels, uint8 [out_channels, k]."""
        return unpack(tensors["codes"], self.width, matrix_shape(shape)[1])

    def levels(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Float32 [out_channels or 1, 2^width], ascending."""
        return from_bits(tensors["codebook"], torch.bfloat16)

    def rows(self, tensors: Mapping[str, Tensor], rows: slice) -> dict[str, Tensor]:
        """What these output channels alone are stored as: views of the stored tensors."""
        codebook = tensors["codebook"]
        return {
            "codes": tensors["codes"][rows],
            "codebook": codebook[rows] if self.granularity == "channel" else codebook,
        }

    @override
    def decode(self, tensors: Mapping[str, Tensor], shape: Shape) -> Tensor:
        height, columns = matrix_shape(shape)
        parts = []
        for rows in row_chunks(height, columns):
            part = self.rows(tensors, rows)
            index = unpack(part["codes"], self.width, columns).long()
            parts.append(self.levels(part).expand(len(index), -1).gather(1, index))
        return torch.cat(parts).reshape(shape)

    @override
    def check(self, tensors: Mapping[str, Tensor]) -> None:
        levels = self.levels(tensors)
        if not bool(torch.isfinite(levels).all()):
            raise FormatError("codebook holds values that are not finite")
        if not bool((levels[:, 1:] >= levels[:, :-1]).all()):
            raise FormatError("codebook holds levels that are not in ascending order")

    def _codebook(self, matrix: Tensor) -> Tensor:
        """Levels as stored, bfloat16 [rows or 1, 2^width]."""
        count = 2**self.width
        if self.granularity == "tensor":
            levels = kmeans(matrix.view(1, -1), count)
        else:
            chunks = row_chunks(*matrix.shape)
            levels = torch.cat([kmeans(matrix[rows], count) for rows in chunks])
        # The largest float32 values would be rounded up to infinity.
        limit = torch.finfo(torch.bfloat16).max
        return levels.clamp_(-limit, limit).to(torch.bfloat16)


@register_weight_format
def _kmeans(name: str) -> WeightFormat | None:
    match = re.fullmatch(rf"kmeans({NUMBER})/(tensor|channel)", name)
    if match is None:
        return None
    return CodebookFormat(int(match[1]), "tensor" if match[2] == "tensor" else "channel")
