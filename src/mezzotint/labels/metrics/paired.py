"""Distance of features of paired images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor
from typing_extensions import override

from mezzotint.labels.metrics.feature_cache import check_features, features, reference_features
from mezzotint.labels.metrics.image_label import ImageLabel, mean_and_error


@dataclass(frozen=True)
class PairedFeatures(ImageLabel):
    """Mean squared distance of Lite0 features to those of the same prompt and seed.

    The square is summed over the features, as in a Fréchet distance.

    Attributes:
        count: number of images.
    """

    count: int = 64

    kind: ClassVar[str] = "paired"
    bounds: ClassVar[Mapping[str, tuple[float, float]]] = {
        **ImageLabel.bounds,
        kind: (0.0, math.inf),
    }

    @override
    def check_available(self) -> None:
        check_features()

    @override
    def compared(self, references: Tensor, images: Tensor) -> tuple[float, float]:
        difference = features(images).astype(np.float64) - reference_features(references)
        return mean_and_error(np.square(difference).sum(1))
