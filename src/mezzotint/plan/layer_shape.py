"""The shape of a layer, and a layer with its weight, as structures are told of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from mezzotint.formats import Shape


@dataclass(frozen=True)
class LayerShape:
    """Shape of a Linear or Conv2d, or of a part of one.

    Attributes:
        weight: [out, in] of a Linear, [out, in / groups, height, width] of a Conv2d.
        groups: of channels that are convolved apart.
    """

    weight: Shape
    groups: int = 1

    @property
    def is_linear(self) -> bool:
        """True for a Linear, whose input is [..., in]; a Conv2d's is [n, in, h, w]."""
        return len(self.weight) == 2

    @property
    def in_channels(self) -> int:
        """Input features or channels."""
        return self.weight[1] * self.groups

    @property
    def out_channels(self) -> int:
        """Output features or channels."""
        return self.weight[0]

    @property
    def channel_dim(self) -> int:
        """Dimension of the features or channels in inputs and outputs, from the end."""
        return -1 if self.is_linear else -3

    def along_channels(self, values: Tensor) -> Tensor:
        """`values` [channels], to be combined with an input or output."""
        return values.view(-1, *(1,) * (-self.channel_dim - 1))

    def with_bias(self, y: Tensor, bias: Tensor | None) -> Tensor:
        """The output `y` plus the bias [out], where there is one."""
        return y if bias is None else y + self.along_channels(bias.to(y.dtype))


@dataclass(frozen=True, eq=False)
class Reader:
    """A layer, or part of one, that reads a tensor.

    Attributes:
        weight: floating.
        layer: its shape.
    """

    weight: Tensor
    layer: LayerShape

    @cached_property
    def channel_peaks(self) -> Tensor:
        """Largest |weight| that multiplies each input channel: float32 [in_channels]."""
        return self._by_channel().abs().amax((1, 3)).flatten().float()

    @cached_property
    def channel_energies(self) -> Tensor:
        """Sum of the squares of the weights of each input channel: float64 [in_channels]."""
        return self._by_channel().double().square().sum((1, 3)).flatten()

    def _by_channel(self) -> Tensor:
        """The weight as [groups, outputs of one, inputs of one, kernel]."""
        outputs, inputs, *_ = self.layer.weight
        groups = self.layer.groups
        return self.weight.detach().reshape(groups, outputs // groups, inputs, -1)
