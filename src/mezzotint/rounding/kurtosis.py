"""Kurtosis of output channels: how far outliers stand out."""

from __future__ import annotations

import torch
from torch import Tensor

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
