"""Checks of what image metrics are given."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mezzotint.errors import UsageError

ImageArray: TypeAlias = npt.NDArray[np.uint8]
"""uint8 [n, H, W, 3], RGB."""


def check_images(images: ImageArray, name: str) -> None:
    """Raises UsageError unless `images` is uint8 [n, H, W, 3] with at least one pixel."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3 or not images.size:
        raise UsageError(
            f"{name}: is {images.dtype} {list(images.shape)}; give RGB images as uint8 [n, H, W, 3]"
        )


def check_pair(reference: ImageArray, images: ImageArray) -> None:
    """Raises UsageError unless both are image batches of the same shape."""
    check_images(reference, "reference")
    check_images(images, "images")
    if reference.shape != images.shape:
        raise UsageError(
            f"reference and images differ in shape, {list(reference.shape)} and "
            f"{list(images.shape)}; generate both from the same prompts at the same size"
        )
