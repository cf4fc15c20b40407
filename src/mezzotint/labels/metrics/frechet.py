"""Fréchet distance of the features of all images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor
from typing_extensions import override

from mezzotint.evaluation import frechet_distance
from mezzotint.labels.metrics.feature_cache import check_features, features, reference_features
from mezzotint.labels.metrics.image_label import ImageLabel

_GROUPS = 10
"""Parts of the images, each of which is left out once."""


@dataclass(frozen=True)
class FrechetDistance(ImageLabel):
    """FD-Lite0 between the floating and the changed model's images of the same prompts and seeds.

    Biased upwards by a number of images that is small for 1,280 features, so that only figures of
    as many images compare. The standard error is the jackknife's, over tenths of the prompts.

    Attributes:
        count: number of images, 1,000 or more.
    """

    count: int = 1000

    kind: ClassVar[str] = "fd"
    bounds: ClassVar[Mapping[str, tuple[float, float]]] = {
        **ImageLabel.bounds,
        kind: (0.0, math.inf),
    }
    fewest: ClassVar[int] = 1000

    @override
    def check_available(self) -> None:
        check_features()

    @override
    def compared(self, references: Tensor, images: Tensor) -> tuple[float, float]:
        before, after = reference_features(references), features(images)
        group = np.arange(len(after)) % _GROUPS
        without = [
            frechet_distance(before[group != each], after[group != each]) for each in range(_GROUPS)
        ]
        error = math.sqrt((_GROUPS - 1) * np.var(without))
        return frechet_distance(before, after), error
