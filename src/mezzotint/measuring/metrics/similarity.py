"""Structural similarity of images, and the metric that MixDQ measures content layers by."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d
from typing_extensions import override

from mezzotint.errors import UsageError
from mezzotint.measuring.metrics.metric import Figures, Metric, Pair, Sight, register_metric

Values = TypeVar("Values", Tensor, npt.NDArray[np.float64])


def similarity_map(
    x: Values,
    y: Values,
    local_mean: Callable[[Values], Values],
    *,
    peak: float = 1.0,
    correction: float = 1.0,
) -> Values:
    """Structural similarity at every position of a window.

    After Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity"
    (2004), with K1 = 0.01 and K2 = 0.03.

    Args:
        x: images, in float64: variances are small differences of squares.
        y: images of the same shape.
        local_mean: mean under the window, at each of its positions.
        peak: largest value of an image.
        correction: n / (n - 1) for sample variances under a window of n pixels, 1 for those of the
            population.
    """
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    mean_x, mean_y = local_mean(x), local_mean(y)
    squares = mean_x * mean_x + mean_y * mean_y
    variances = correction * (
        local_mean(x * x) - mean_x * mean_x + (local_mean(y * y) - mean_y * mean_y)
    )
    covariance = correction * (local_mean(x * y) - mean_x * mean_y)
    luminance = (2 * (mean_x * mean_y) + c1) / (squares + c1)
    return luminance * (2 * covariance + c2) / (variances + c2)


def global_ssim(reference: Tensor, images: Tensor) -> Tensor:
    """Mean structural similarity of each pair under one nearly global, uniform window.

    The window is the largest odd number below the shorter side (511 for 512² pixels), so that few
    positions lie inside the image; the mean is over those and over RGB. Sample variances and a
    peak of 1: scikit-image's `structural_similarity` with that `win_size`. MixDQ (arXiv
    2405.17873) measures content layers so.

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
    window = (min(reference.shape[2:]) - 2) // 2 * 2 + 1
    correction = window**2 / (window**2 - 1)

    def mean(values: Tensor) -> Tensor:
        return avg_pool2d(values, window, stride=1)

    found = similarity_map(reference.double(), images.double(), mean, correction=correction)
    return found.flatten(1).mean(1)


@register_metric
@dataclass(frozen=True)
class Similarity(Metric):
    """Mean over prompts of `global_ssim` of the images; 1 for equal ones."""

    kind: ClassVar[str] = "ssim"
    sees: ClassVar[Sight] = "images"
    bounds: ClassVar[Mapping[str, tuple[float, float]]] = {"ssim": (-1 - 1e-6, 1 + 1e-6)}  # rounded

    @override
    def figures(self, pairs: Iterable[Pair]) -> dict[str, float]:
        return {"ssim": float(torch.cat([global_ssim(*pair) for pair in pairs]).mean())}

    @override
    def loss(self, figures: Figures) -> float:
        similarity = figures["ssim"]
        # Figures of a ruined model are infinite, whichever way the metric counts.
        return 1.0 - similarity if math.isfinite(similarity) else math.inf


def _check(name: str, images: Tensor) -> None:
    sized = images.ndim == 4 and images.shape[1] == 3 and min(images.shape[2:]) >= 4
    if not (sized and torch.is_floating_point(images)):
        raise UsageError(
            f"{name}: is {images.dtype} {list(images.shape)}; give RGB images as floating "
            "[n, 3, h, w], with sides of 4 pixels or more"
        )
