"""The windows of a convolution: what the product kernel needs to find their inputs itself."""

from __future__ import annotations

from dataclasses import dataclass

from mezzotint.runtime.geometry import ConvGeometry, Pair


@dataclass(frozen=True)
class Windows:
    """A convolution over images of a given size.

    Attributes:
        geometry: of the convolution; zeros below and right of the image are implied by `out_size`.
        size: height and width of the image.
    """

    geometry: ConvGeometry
    size: Pair

    @property
    def out_size(self) -> Pair:
        """Height and width of the output."""
        return self.geometry.output_size(*self.size)

    @property
    def padded(self) -> bool:
        """True where any window reaches over its image."""
        padding, stride, extent = self.geometry.padding, self.geometry.stride, self.geometry.extent
        ends = [
            (self.out_size[axis] - 1) * stride[axis] + extent[axis] - 1 - padding[axis][0]
            for axis in range(2)
        ]
        before = any(first for first, _ in padding)
        return before or any(end >= size for end, size in zip(ends, self.size, strict=True))

    @property
    def places(self) -> int:
        """Pixels of an output image."""
        return self.out_size[0] * self.out_size[1]


#: Every row of a linear's input is an image of one pixel.
ROWS = Windows(ConvGeometry((1, 1)), (1, 1))
