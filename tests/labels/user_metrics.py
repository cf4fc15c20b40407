"""Metrics as a user may write them."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

ABSOLUTE = f"{__name__}:absolute"


def absolute(references: Tensor, images: Tensor) -> Tensor:
    return (references - images).abs().mean((1, 2, 3))


def writing(references: Tensor, images: Tensor) -> Tensor:
    images.zero_()
    return absolute(references, images)


def mean_only(references: Tensor, images: Tensor) -> float:
    return float(absolute(references, images).mean())


def one_short(references: Tensor, images: Tensor) -> list[float]:
    return absolute(references, images).tolist()[1:]


def not_a_number(references: Tensor, images: Tensor) -> list[float]:
    return [0.0] * (len(images) - 1) + [math.nan]


def failing(references: Tensor, images: Tensor) -> None:
    raise ValueError("no such network")


def constant(references: Tensor, images: Tensor) -> np.ndarray:
    return np.ones(len(images))


NUMBER = 3
