"""Orders of output channels by kurtosis: those with outliers take the most bits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mezzotint.errors import FormatError
from mezzotint.formats.chunks import row_chunks
from mezzotint.formats.weight_format import check_finite, matrix_shape


def kurtosis(weight: Tensor) -> Tensor:
    """E[(w - μ)⁴] / σ⁴ of each output channel: float64 [out_channels].

    1 at least, 3 for normal weights, above that with outliers; 0 for a constant channel. Not the
    excess. MPQ-DM (arXiv 2412.11549), outlier-driven mixed quantization.

    Raises:
        FormatError: the weight holds NaN or infinity, or has fewer than two dimensions.
    """
    matrix = weight.detach().reshape(matrix_shape(tuple(weight.shape))).float()
    check_finite(matrix)
    return torch.cat([_kurtosis(matrix[rows].double()) for rows in row_chunks(*matrix.shape)])


def _kurtosis(rows: Tensor) -> Tensor:
    constant = rows.amax(1) == rows.amin(1)
    rows = rows - rows.mean(1, keepdim=True)
    # In units of the largest, where no power can vanish.
    peak = rows.abs().amax(1, keepdim=True)
    squares = rows.div_(torch.where(peak > 0, peak, 1.0)).square_()
    variance = squares.mean(1)
    fourth = squares.square_().mean(1)
    ratio = fourth / torch.where(constant, 1.0, variance.square())
    return torch.where(constant, 0.0, ratio)


def channel_order(weight: Tensor, counts: Sequence[int]) -> Tensor:
    """The place of each output channel among rows stored in segments of `counts` rows.

    Kurtosis rises from segment to segment: the last one, of the most bits, has the channels with
    the worst outliers. Equal ones, and channels within a segment, keep their order.

    Returns:
        int64 [out_channels]: a permutation.

    Raises:
        FormatError: the counts do not sum to the output channels, or the weight holds NaN.
    """
    rising = kurtosis(weight).argsort(stable=True)
    if sum(counts) != len(rising):
        raise FormatError(
            f"counts sum to {sum(counts)}, but the weight has {len(rising)} output channels"
        )
    stored = torch.cat([segment.sort().values for segment in torch.split(rising, list(counts))])
    return stored.argsort()
