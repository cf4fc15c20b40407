"""How a convolution moves over its input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.functional import pad


@dataclass(frozen=True)
class Geometry:
    """How a convolution moves over its input."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    #: Further padding at the left, right, top and bottom, which oneDNN does not know of.
    uneven: tuple[int, int, int, int] = (0, 0, 0, 0)

    @classmethod
    def of(cls, geometry: Mapping[str, Any], kernel: tuple[int, int]) -> Self:
        """From the attributes of a Conv2d and the size of its kernel."""
        stride, dilation = tuple(geometry["stride"]), tuple(geometry["dilation"])
        padding, uneven = geometry["padding"], (0, 0, 0, 0)
        if padding == "valid":
            padding = (0, 0)
        elif padding == "same":
            (top, bottom), (left, right) = (
                (step * (size - 1) // 2, -(-step * (size - 1) // 2))
                for step, size in zip(dilation, kernel, strict=True)
            )
            padding, uneven = (0, 0), (left, right, top, bottom)
        return cls(stride, tuple(padding), dilation, int(geometry["groups"]), uneven)

    def padded(self, x: Tensor, value: float) -> Tensor:
        """`x` with the uneven padding."""
        return pad(x, self.uneven, value=value) if any(self.uneven) else x


def window_sums(sums: Tensor, geometry: Geometry, kernel: tuple[int, ...]) -> Tensor:
    """What each output pixel's window holds of `sums` [n, h, w]: float32 [n, oh, ow]."""
    ones = torch.ones(1, 1, *kernel[1:], dtype=torch.float32, device="cpu")
    known = geometry.padded(sums.nan_to_num(nan=0.0).unsqueeze(1), 0)
    with torch.autocast("cpu", enabled=False):
        found = torch.nn.functional.conv2d(
            known, ones, None, geometry.stride, geometry.padding, geometry.dilation
        )
    return found.squeeze(1)
