"""The values that kernels compute with: a packed weight, an operation, the quantizer of an input.

They know neither modules nor kernels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from mezzotint.errors import FormatError
from mezzotint.formats import ActivationFormat, Segment, Shape, WeightFormat
from mezzotint.runtime.convolution import conv2d
from mezzotint.runtime.geometry import ConvGeometry


@dataclass(frozen=True, eq=False)
class PackedWeight:
    """The stored weight of a layer.

    Attributes:
        format: of the weight.
        tensors: as they are stored, by the names of the format's layout.
        shape: [out, in / groups, kernel…] of the weight.
    """

    format: WeightFormat
    tensors: Mapping[str, Tensor]
    shape: Shape

    @property
    def columns(self) -> int:
        """Weights of one output."""
        return math.prod(self.shape[1:])

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """The stored rows in canonical forms: views."""
        return self.format.segments(self.tensors, self.shape)

    @cached_property
    def order(self) -> Tensor | None:
        """The stored row of each output, int64 [out]; None where they stand in order."""
        return self.format.order(self.tensors)

    def dequantized(self, dtype: torch.dtype) -> Tensor:
        """The values of the weight, of its shape."""
        return self.format.decode(self.tensors, self.shape).to(dtype)


@dataclass(frozen=True, eq=False)
class GivenScales:
    """Scales that a layer is given with its input, for formats that have several, and its bias.

    Attributes:
        scale: of the input, float32 [1], or [n] for n equal parts of the batch, one after another.
        zero_point: likewise, of whole numbers.
        bias: floating [out], to be added to the output; None for none.
    """

    scale: Tensor
    zero_point: Tensor
    bias: Tensor | None = None

    def shared(self) -> GivenScales:
        """The same with a single scale and zero point, where all are equal."""
        scale, zero_point = self.scale, self.zero_point
        alike = (scale == scale[0]) & (zero_point == zero_point[0])
        return GivenScales(scale[:1], zero_point[:1], self.bias) if bool(alike.all()) else self


@dataclass(frozen=True, eq=False)
class InputQuantizer:
    """The rounding of an input.

    Attributes:
        format: of the codes.
        scale: float32 [1], calibrated, or [n] for n equal parts of the batch, one after another;
            None where the format is dynamic.
        zero_point: whole numbers, likewise.
    """

    format: ActivationFormat
    scale: Tensor | None = None
    zero_point: Tensor | None = None

    def parameters(self, x: Tensor, operation: Operation) -> tuple[Tensor, Tensor]:
        """Scale and whole zero point, float32, of an operation's input."""
        if self.scale is None or self.zero_point is None:
            return self.format.dynamic_parameters(x, operation.scale_dims(self.format))
        return along_batch(self.scale, x), along_batch(self.zero_point.float(), x)

    @property
    def several(self) -> bool:
        """True if parts of the batch have calibrated scales of their own."""
        return self.scale is not None and len(self.scale) > 1

    def split(self, x: Tensor) -> Iterator[tuple[Tensor, InputQuantizer]]:
        """Each part of the batch that has scales of its own, with its quantizer."""
        assert self.scale is not None
        assert self.zero_point is not None
        parts = torch.split(x, len(x) // len(self.scale))
        for each, scale, zero in zip(parts, self.scale, self.zero_point, strict=True):
            yield each, InputQuantizer(self.format, scale.view(1), zero.view(1))

    def check(self, scale: str = "input_scale", zero_point: str = "input_zero_point") -> None:
        """Refuse stored ranges that no calibration can have written.

        Args:
            scale: name of that tensor.
            zero_point: likewise.

        Raises:
            FormatError: naming the tensor.
        """
        if self.scale is None or self.zero_point is None:
            return
        if not bool((torch.isfinite(self.scale) & (self.scale > 0)).all()):
            raise FormatError(f"{scale} is not positive and finite")
        highest = 0 if self.format.symmetric else self.format.limits[1]
        if int(self.zero_point.max()) > highest:
            raise FormatError(f"{zero_point} is above {highest}, the highest of {self.format}")

    def rounded(self, x: Tensor, operation: Operation) -> Tensor:
        """The values of the codes of an operation's input; gradients pass straight through."""
        return self.format.roundtrip(x, *self.parameters(x, operation))


def along_batch(values: Tensor, x: Tensor) -> Tensor:
    """One value, or [n] for n equal parts of the batch of `x`, to be combined with it."""
    if len(values) == 1:
        return values
    each = values.repeat_interleave(x.shape[0] // len(values))
    return each.view(-1, *(1,) * (x.ndim - 1))


@dataclass(frozen=True)
class Linear:
    """y = x Wᵀ + b over the last dimension of x."""

    name: ClassVar[str] = "linear"
    #: The dimension of features or channels, from the end.
    channel_dim: ClassVar[int] = -1
    #: Groups of channels that are computed apart.
    groups: ClassVar[int] = 1
    #: The layout of outputs under compilers.
    memory_format: ClassVar[torch.memory_format] = torch.contiguous_format

    def scale_dims(self, activation: ActivationFormat) -> tuple[int, ...]:
        """The dimensions of an input that share one dynamic scale.

        Raises:
            FormatError: such inputs have no scales of that format.
        """
        if activation.simulated:
            raise FormatError(
                f"{activation} has a scale per image and channel, which inputs of a convolution "
                f"have; take '{replace(activation, granularity='token')}' for a Linear"
            )
        return (-1,)

    def batch(self, x: Tensor) -> int:
        """Samples, or rows, among which a batch of inputs is divided."""
        return x.shape[0] if x.ndim > 1 else 1

    def takes(self, x: Tensor, weight_shape: Shape) -> bool:
        """Return whether `x` fits a weight of that shape."""
        return x.is_floating_point() and x.ndim >= 1 and x.shape[-1] == weight_shape[1]

    def empty_output(self, x: Tensor, outputs: int) -> Tensor:
        """A tensor of the output's shape, dtype and layout, without values."""
        return x.new_empty(*x.shape[:-1], outputs)

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The floating-point operation."""
        return functional.linear(x, weight, bias)


@dataclass(frozen=True)
class Conv2d:
    """A 2-D convolution of x [n, c, h, w] or [c, h, w]."""

    geometry: ConvGeometry

    name: ClassVar[str] = "conv2d"
    channel_dim: ClassVar[int] = -3
    memory_format: ClassVar[torch.memory_format] = torch.channels_last

    @property
    def groups(self) -> int:
        """Groups of channels that are convolved apart."""
        return self.geometry.groups

    def scale_dims(self, activation: ActivationFormat) -> tuple[int, ...]:
        """The dimensions of an input that share one dynamic scale."""
        return (-2, -1) if activation.simulated else (-3, -2, -1)

    def batch(self, x: Tensor) -> int:
        """Images of the batch."""
        return x.shape[0] if x.ndim > 3 else 1

    def takes(self, x: Tensor, weight_shape: Shape) -> bool:
        """Return whether `x` fits a weight of that shape, and is large enough for one window."""
        if not x.is_floating_point() or x.ndim not in (3, 4):
            return False
        channels = weight_shape[1] * self.groups
        size = self.geometry.output_size(x.shape[-2], x.shape[-1])
        return x.shape[-3] == channels and min(size) > 0

    def empty_output(self, x: Tensor, outputs: int) -> Tensor:
        """A tensor of the output's shape, dtype and layout, without values."""
        shape = *x.shape[:-3], outputs, *self.geometry.output_size(x.shape[-2], x.shape[-1])
        batch = torch.empty(
            (1,) * (4 - x.ndim) + shape,
            dtype=x.dtype,
            device=x.device,
            memory_format=self.memory_format,
        )
        return batch if x.ndim == 4 else batch.squeeze(0)

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The floating-point operation."""
        return conv2d(x, weight, bias, self.geometry)


Operation = Linear | Conv2d
