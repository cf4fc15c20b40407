"""The base of labels that compare images."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from typing_extensions import override

from mezzotint.errors import UsageError
from mezzotint.measuring import Figures, Metric, Pair
from mezzotint.measuring.metrics import Sight

ERROR = "standard error"

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ImageLabel(Metric):
    """A figure of all images together, lower for better ones, and its standard error.

    Images that hold NaN or infinite values are those of a ruined model: its figures are infinite.

    Attributes:
        count: number of images, those of the first prompts.
        fewest: that it can be told from.
    """

    count: int

    sees: ClassVar[Sight] = "images"
    bounds: ClassVar[Mapping[str, tuple[float, float]]] = {ERROR: (0.0, math.inf)}
    fewest: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if self.count < self.fewest:
            raise UsageError(
                f"images: {self.kind} of {self.count} is not possible; give {self.fewest:,} or more"
            )

    @property
    @override
    def name(self) -> str:
        return f"{self.kind} of {self.count} images"

    @property
    @override
    def prompts(self) -> int:
        return self.count

    @override
    def figures(self, pairs: Iterable[Pair]) -> dict[str, float]:
        references, images = (torch.cat(each) for each in zip(*pairs, strict=True))
        if len(images) > self.count:
            raise UsageError(
                f"images: {self.kind} compares pictures, and the pipeline made {len(images):,} "
                f"frames of {self.count:,} prompts; use metric noise for videos"
            )
        if len(images) != self.count:
            raise UsageError(
                f"images: {self.kind} takes {self.count:,}, but there are prompts for "
                f"{len(images):,}; give more prompts"
            )
        if not bool(torch.isfinite(images).all()):
            return {self.kind: math.inf, ERROR: math.inf}
        value, error = self.compared(references, images)
        return {self.kind: value, ERROR: error}

    @abstractmethod
    def compared(self, references: Tensor, images: Tensor) -> tuple[float, float]:
        """The figure and its standard error.

        Args:
            references: of the floating model, float32 [n, 3, h, w] in [0, 1].
            images: of the changed one, pair by pair; finite.
        """

    @override
    def loss(self, figures: Figures) -> float:
        return figures[self.kind]

    @override
    def standard_error(self, figures: Figures) -> float | None:
        return figures[ERROR]


def mean_and_error(values: Floats) -> tuple[float, float]:
    """Mean of independent values [n] and its standard error; n is 2 or more."""
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))
