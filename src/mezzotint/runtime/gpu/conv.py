"""Where a convolution's windows lie: what the product kernel needs to find their inputs itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Pair = tuple[int, int]


@dataclass(frozen=True)
class Windows:
    """A convolution over images of a given size; all pairs are (vertical, horizontal).

    Attributes:
        padding: above and left of the image; zeros below and right are implied by `out_size`.
    """

    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    size: Pair = (1, 1)
    out_size: Pair = (1, 1)

    @property
    def taps(self) -> int:
        """Weights of a channel."""
        return self.kernel[0] * self.kernel[1]

    @property
    def padded(self) -> bool:
        """Whether any window reaches over its image."""
        axes = zip(self.kernel, self.stride, self.dilation, self.out_size, strict=True)
        last = [(out - 1) * stride + (taps - 1) * step for taps, stride, step, out in axes]
        ends = [at - pad for at, pad in zip(last, self.padding, strict=True)]
        return any(self.padding) or any(e >= size for e, size in zip(ends, self.size, strict=True))

    @property
    def places(self) -> int:
        """Pixels of an output image."""
        return self.out_size[0] * self.out_size[1]


#: Every row of a linear's input is an image of one pixel.
ROWS = Windows()


def windows(geometry: Mapping[str, Any], kernel: Pair, size: Pair) -> Windows:
    """The windows of a stock Conv2d of that `geometry` over images of `size`."""
    stride, dilation = _pair(geometry["stride"]), _pair(geometry["dilation"])
    reach = (dilation[0] * (kernel[0] - 1), dilation[1] * (kernel[1] - 1))
    before, both = _padding(geometry["padding"], reach)
    rows, columns = ((size[i] + both[i] - reach[i] - 1) // stride[i] + 1 for i in range(2))
    return Windows(kernel, stride, before, dilation, int(geometry["groups"]), size, (rows, columns))


def _padding(padding: object, reach: Pair) -> tuple[Pair, Pair]:
    """Zeros before, and on both sides together; `same` puts the odd one behind, as torch does."""
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding == "same":
        return (reach[0] // 2, reach[1] // 2), reach
    before = _pair(padding)
    return before, (2 * before[0], 2 * before[1])


def _pair(value: Any) -> Pair:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))
