"""Metrics of image pairs: the same prompt and seed, before and after quantization."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from mezzotint.errors import UsageError
from mezzotint.evaluation._images import ImageArray, check_pair
from mezzotint.measuring import similarity_map

_PEAK = 255.0
_TRUNCATE = 3.5
"""Radius of the Gaussian window in sigmas: 11×11 pixels at the usual sigma of 1.5."""


def psnr(reference: ImageArray, images: ImageArray) -> npt.NDArray[np.float64]:
    """Peak signal-to-noise ratio of each pair, in dB: 10 log10(255² / mean squared error).

    Identical images get the figure of the smallest difference that 8 bits can express, one level
    in one value (89.0 dB at 64×64), so that means and intervals over images stay finite.

    Args:
        reference: uint8 [n, H, W, 3].
        images: uint8 [n, H, W, 3], row by row from the same prompts and seeds.

    Returns:
        float64 [n].

    Raises:
        UsageError: a shape or dtype is wrong, or the shapes differ.
    """
    check_pair(reference, images)
    smallest = 1 / reference[0].size
    # Differences of uint8 would wrap modulo 256, hence the floating point; one image at a time,
    # since float64 takes eight times the memory.
    errors = [
        np.square(a.astype(np.float64) - b).mean() for a, b in zip(reference, images, strict=True)
    ]
    return np.asarray(10 * np.log10(_PEAK**2 / np.maximum(errors, smallest)))


def ssim(
    reference: ImageArray, images: ImageArray, *, sigma: float = 1.5
) -> npt.NDArray[np.float64]:
    """Structural similarity of each pair: 1 for identical images, averaged over RGB.

    After Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity"
    (2004): Gaussian window, K1 = 0.01, K2 = 0.03, and the mean over pixels whose window lies
    inside the image. Where images are smaller than the window, it is reflected at the edges and
    the mean taken over the central pixels.

    Args:
        reference: uint8 [n, H, W, 3].
        images: uint8 [n, H, W, 3], row by row from the same prompts and seeds.
        sigma: standard deviation of the window in pixels; its radius is 3.5 times that.

    Returns:
        float64 [n], each at most 1.

    Raises:
        UsageError: a shape or dtype is wrong, the shapes differ, or `sigma` is not positive.
    """
    check_pair(reference, images)
    if not (math.isfinite(sigma) and sigma > 0):
        raise UsageError(f"sigma: {sigma} is out of range; use a positive number of pixels")
    return np.array([_ssim(a, b, sigma) for a, b in zip(reference, images, strict=True)])


def _ssim(reference: npt.NDArray[np.uint8], image: npt.NDArray[np.uint8], sigma: float) -> float:
    radius = int(_TRUNCATE * sigma + 0.5)
    inside = tuple(
        slice(b, -b or None) for b in (min(radius, (n - 1) // 2) for n in image.shape[:2])
    )

    def local_mean(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        blurred = ndimage.gaussian_filter(values, (sigma, sigma, 0), truncate=_TRUNCATE)
        return np.asarray(blurred)[inside]

    x, y = reference.astype(np.float64), image.astype(np.float64)
    return float(similarity_map(x, y, local_mean, peak=_PEAK).mean())
