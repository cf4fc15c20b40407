"""Lite0 features of images in measurements; those of the same references are computed once."""

from __future__ import annotations

import functools
import hashlib
from collections import OrderedDict

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from mezzotint.evaluation import lite0_features, load_lite0

_KEPT = 4
"""Sets of references whose features are remembered: a few megabytes each."""

_references: OrderedDict[bytes, npt.NDArray[np.float32]] = OrderedDict()


def check_features() -> None:
    """Raise where features cannot be computed.

    Raises:
        ModelError: the extra "evaluation" is not installed.
    """
    _network()


def features(images: Tensor) -> npt.NDArray[np.float32]:
    """Features of EfficientNet-Lite0 of images as files hold them: float32 [n, 1280].

    Args:
        images: float32 [n, 3, h, w] in [0, 1].

    Raises:
        ModelError: the extra "evaluation" is not installed.
    """
    return lite0_features(_as_bytes(images), _network(), progress=False)


def reference_features(images: Tensor) -> npt.NDArray[np.float32]:
    """The same, of images that come again with every measurement."""
    key = hashlib.sha256(f"{tuple(images.shape)}".encode() + images.numpy().tobytes()).digest()
    if key not in _references:
        _references[key] = features(images)
        while len(_references) > _KEPT:
            _references.popitem(last=False)
    _references.move_to_end(key)
    return _references[key]


@functools.cache
def _network() -> nn.Module:
    return load_lite0()


def _as_bytes(images: Tensor) -> npt.NDArray[np.uint8]:
    """Images uint8 [n, h, w, 3], rounded as `generate` rounds them."""
    rounded = (images.permute(0, 2, 3, 1).numpy().clip(0, 1) * 255).round()
    return rounded.astype(np.uint8)
