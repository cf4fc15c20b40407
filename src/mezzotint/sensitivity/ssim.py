"""Structural similarity of whole images, as MixDQ measures it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from mezzotint.errors import UsageError

_C1 = 0.01**2
_C2 = 0.03**2


def global_ssim(reference: Tensor, images: Tensor) -> Tensor:
    """Mean structural similarity of each pair under one nearly global, uniform window.

    The window is the largest odd number below the shorter side (511 for 512² pixels), so that few
    positions lie inside the image; the mean is over those and over RGB. Sample variances, K1 =
    0.01, K2 = 0.03 and a peak of 1: scikit-image's `structural_similarity` with that `win_size`.
    MixDQ (arXiv 2405.17873) measures content layers so.

    Args:
        reference: floating [n, 3, h, w] in [0, 1], sides of 4 pixels or more.
        images: likewise, pair by pair.

    Returns:
        float64 [n], at most 1; exactly 1 for equal images.

    Raises:
        UsageError: a shape or dtype is wrong, or the shapes differ.
    """
    _check("reference", reference)
    _check("images", images)
    if reference.shape != images.shape:
        raise UsageError(
            f"reference and images differ in shape, {list(reference.shape)} and "
            f"{list(images.shape)}; generate both from the same prompts at the same size"
        )
    # Variances are small differences of squares, hence float64.
    x, y = reference.double(), images.double()
    window = (min(x.shape[2:]) - 2) // 2 * 2 + 1
    sample = window**2 / (window**2 - 1)

    def mean(values: Tensor) -> Tensor:
        return avg_pool2d(values, window, stride=1)

    mean_x, mean_y = mean(x), mean(y)
    squares = mean_x * mean_x + mean_y * mean_y
    variances = sample * (mean(x * x) - mean_x * mean_x + (mean(y * y) - mean_y * mean_y))
    covariance = sample * (mean(x * y) - mean_x * mean_y)
    luminance = (2 * (mean_x * mean_y) + _C1) / (squares + _C1)
    return (luminance * (2 * covariance + _C2) / (variances + _C2)).flatten(1).mean(1)


def _check(name: str, images: Tensor) -> None:
    sized = images.ndim == 4 and images.shape[1] == 3 and min(images.shape[2:]) >= 4
    if not (sized and torch.is_floating_point(images)):
        raise UsageError(
            f"{name}: is {images.dtype} {list(images.shape)}; give RGB images as floating "
            "[n, 3, h, w], with sides of 4 pixels or more"
        )
