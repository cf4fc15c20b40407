"""Mean squared difference of generated images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from typing_extensions import override

from mezzotint.errors import UsageError
from mezzotint.measuring.metrics.metric import Figures, Metric, Pair, Sight, register_metric


@register_metric
@dataclass(frozen=True)
class ImageError(Metric):
    """Mean squared difference of the images, in [0, 1], of the first `count` prompts.

    Attributes:
        count: number of prompts; None for all.
    """

    count: int | None = None

    kind: ClassVar[str] = "image-error"
    sees: ClassVar[Sight] = "images"

    def __post_init__(self) -> None:
        if self.count is not None and self.count < 1:
            raise UsageError(f"count: is {self.count}; give 1 prompt or more, or None for all")

    @property
    @override
    def name(self) -> str:
        return self.kind if self.count is None else f"{self.kind} of {self.count} prompts"

    @property
    @override
    def prompts(self) -> int | None:
        return self.count

    @override
    def figures(self, pairs: Iterable[Pair]) -> dict[str, float]:
        references, images = (torch.cat(each) for each in zip(*pairs, strict=True))
        return {"mse": float((images - references).square().mean())}

    @override
    def loss(self, figures: Figures) -> float:
        return figures["mse"]
