"""Distance between the distributions of two sets of images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import linalg
from torch import nn

from mezzotint.errors import UsageError
from mezzotint.evaluation._images import ImageArray
from mezzotint.evaluation.features import FEATURES, IMAGE_SIZE, lite0_features, load_lite0

MIN_IMAGES = 2000
"""Below this many images the covariance of 1280 features is too noisy to rank models by."""


@dataclass(frozen=True)
class FDLite0:
    """Fréchet distance between EfficientNet-Lite0 features; not comparable to an FID.

    Attributes:
        value: the distance, 0 or more, in squared feature units.
        references: how many reference images it is from.
        images: how many images were compared with them.
        size: side in pixels at which the features were taken.
    """

    value: float
    references: int
    images: int
    size: int = IMAGE_SIZE

    @property
    def note(self) -> str | None:
        """Caveat of the figure; None with enough images on both sides."""
        count = min(self.references, self.images)
        if count >= MIN_IMAGES:
            return None
        return (
            f"biased upwards: from {count} images for {FEATURES} features; compare it only with "
            f"figures of as many images, or use {MIN_IMAGES:,} or more"
        )


def frechet_distance(
    features_a: npt.NDArray[np.floating], features_b: npt.NDArray[np.floating]
) -> float:
    """Fréchet distance between the Gaussians fitted to two sets of features.

    |μa - μb|² + tr(Ca + Cb - 2 (Ca Cb)^½), after Heusel et al., "GANs Trained by a Two Time-Scale
    Update Rule" (2017). With centred features Ca = AᵀA and Cb = BᵀB, the trace of the square root
    is the sum of the singular values of ABᵀ. No square root of a matrix is taken, so singular
    covariances (fewer samples than features) need no regularization.

    Args:
        features_a: [n, d].
        features_b: [m, d].

    Returns:
        The distance, computed in float64; symmetric, and 0 or more.

    Raises:
        UsageError: not two matrices of the same width, fewer than 2 rows, or a value that is not
            finite.
    """
    a, b = _checked(features_a, "features_a"), _checked(features_b, "features_b")
    if a.shape[1] != b.shape[1]:
        raise UsageError(
            f"features_a and features_b differ in width, {a.shape[1]} and {b.shape[1]}; "
            "take both from the same network"
        )
    mean_a, mean_b = a.mean(0), b.mean(0)
    root_a, root_b = _covariance_root(a - mean_a), _covariance_root(b - mean_b)
    cross = linalg.svdvals(root_a @ root_b.T).sum()
    traces = np.square(root_a).sum() + np.square(root_b).sum()
    return max(0.0, float(np.square(mean_a - mean_b).sum() + traces - 2 * cross))


def fd_lite0(
    reference: ImageArray,
    images: ImageArray,
    *,
    network: nn.Module | None = None,
    size: int = IMAGE_SIZE,
) -> FDLite0:
    """Fréchet distance between two sets of images on EfficientNet-Lite0 features.

    Args:
        reference: uint8 [n, H, W, 3].
        images: uint8 [m, H', W', 3].
        network: from `load_lite0`, on the device to compute on; None loads it on the CPU.
        size: side that images are resized to.

    Raises:
        UsageError: fewer than 2 images, or no batches of RGB images.
        ModelError: the extra "evaluation" is not installed.
    """
    for name, some in (("reference", reference), ("images", images)):
        _check_count(len(some), name)
    network = load_lite0() if network is None else network
    value = frechet_distance(
        lite0_features(reference, network, size=size), lite0_features(images, network, size=size)
    )
    return FDLite0(value, len(reference), len(images), size)


def _checked(features: npt.NDArray[np.floating], name: str) -> npt.NDArray[np.float64]:
    if features.ndim != 2:
        raise UsageError(f"{name}: has shape {list(features.shape)}; give [n, features]")
    _check_count(len(features), name)
    if not np.isfinite(features).all():
        raise UsageError(f"{name}: holds NaN or infinite values; look for damaged images")
    return features.astype(np.float64)


def _check_count(count: int, name: str) -> None:
    if count < 2:
        raise UsageError(
            f"{name}: holds {count}, but a covariance takes 2 at least; generate more images "
            f"({MIN_IMAGES:,} for a reliable figure)"
        )


def _covariance_root(centred: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """R with RᵀR the unbiased covariance, of no more rows than features."""
    (root,) = linalg.qr(centred / np.sqrt(len(centred) - 1), mode="r")
    return np.asarray(root[: centred.shape[1]])
