"""The geometry of a 2-D convolution: its windows over its input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor
from torch.nn.functional import pad

Pair = tuple[int, int]


@dataclass(frozen=True)
class ConvGeometry:
    """Kernel, stride, padding, dilation and groups of a convolution; pairs are (height, width).

    Attributes:
        kernel: taps of a window along each axis.
        stride: pixels from one window to the next.
        padding: zeros around the input: (top, bottom), (left, right).
        dilation: pixels from one tap to the next.
        groups: of channels that are convolved apart.
    """

    kernel: Pair
    stride: Pair = (1, 1)
    padding: tuple[Pair, Pair] = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)
    groups: int = 1

    @classmethod
    def of(cls, attributes: Mapping[str, Any], kernel: tuple[int, ...]) -> Self:
        """The geometry of a Conv2d of that stride, padding (`same` and `valid` too) and so on."""
        stride, dilation = _pair(attributes["stride"]), _pair(attributes["dilation"])
        high, wide = _pair(kernel)
        padding = attributes["padding"]
        if padding == "valid":
            sides = (0, 0), (0, 0)
        elif padding == "same":
            sides = _same(high, dilation[0]), _same(wide, dilation[1])
        else:
            vertical, horizontal = _pair(padding)
            sides = (vertical, vertical), (horizontal, horizontal)
        return cls((high, wide), stride, sides, dilation, int(attributes["groups"]))

    @property
    def extent(self) -> Pair:
        """Pixels from the first tap of a window to its last, both included."""
        (high, wide), (down, right) = self.kernel, self.dilation
        return (high - 1) * down + 1, (wide - 1) * right + 1

    @property
    def even_padding(self) -> Pair:
        """Zeros on both sides of each axis, as torch's convolutions take them."""
        vertical, horizontal = self.padding
        return min(vertical), min(horizontal)

    def output_size(self, height: int, width: int) -> Pair:
        """Height and width of the output for an input of that size."""
        (top, bottom), (left, right) = self.padding
        extent, stride = self.extent, self.stride
        return (
            (height + top + bottom - extent[0]) // stride[0] + 1,
            (width + left + right - extent[1]) // stride[1] + 1,
        )

    def with_odd_padding(self, x: Tensor, value: float = 0.0) -> Tensor:
        """`x` [..., h, w] with the padding that one side has more than the other.

        What is left to add is `even_padding` on both sides.
        """
        (top, bottom), (left, right) = self.padding
        if top == bottom and left == right:
            return x
        vertical, horizontal = self.even_padding
        odd = (left - horizontal, right - horizontal, top - vertical, bottom - vertical)
        return pad(x, odd, value=value)

    def padded(self, x: Tensor, value: float = 0.0) -> Tensor:
        """`x` [..., h, w] with all of its padding."""
        (top, bottom), (left, right) = self.padding
        return pad(x, (left, right, top, bottom), value=value)


def _pair(value: Any) -> Pair:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _same(taps: int, dilation: int) -> Pair:
    """Padding that keeps the size; torch puts the odd zero behind."""
    total = dilation * (taps - 1)
    return total // 2, total - total // 2
