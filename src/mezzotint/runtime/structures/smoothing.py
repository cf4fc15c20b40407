"""Input channels scaled by powers of two, and the weight's columns by their inverses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from typing_extensions import override

from mezzotint.errors import CalibrationError, FormatError
from mezzotint.formats import TensorSpec
from mezzotint.plan import (
    LayerShape,
    Observer,
    Parts,
    Reader,
    Structure,
    Tensors,
    register_structure,
)
from mezzotint.runtime.structures.constant_tokens import ConstantTokens
from mezzotint.runtime.structures.split_input import SplitInput

EXPONENT = "exponent"

HIGHEST = 14
"""Largest exponent: 2^14 and 2^-14 are normal numbers of every floating dtype, float16 as well."""

_BIAS, _MANTISSA = 127, 23
"""Layout of float32: the bias of its exponent, and the bits below that."""


def powers_of_two(exponent: Tensor) -> Tensor:
    """Exact powers 2^e of whole exponents e from -126 to 127, float32."""
    return ((exponent.to(torch.int32) + _BIAS) << _MANTISSA).view(torch.float32)


def smoothing_exponent(channel_peaks: Tensor, weight_peaks: Tensor) -> Tensor:
    """Exponents e_j of s_j = sqrt(max|X_j| / max|W_j|), rounded: int8 [channels].

    They are 0 where either is 0, or not finite. s_j = 2^e_j divides input channel j, and multiplies
    the weights of it, so that both have about the same peak (SmoothQuant, arXiv 2211.10438, at
    α = 1/2).

    Args:
        channel_peaks: largest |x| of every input channel.
        weight_peaks: largest |weight| that multiplies it.
    """
    x, w = channel_peaks.double(), weight_peaks.double()
    usable = (x > 0) & (w > 0) & x.isfinite() & w.isfinite()
    ratio = torch.where(usable, x, 1.0) / torch.where(usable, w, 1.0)
    return ratio.log2().div(2).round().clamp(-HIGHEST, HIGHEST).to(torch.int8)


def exponent_spec(layer: LayerShape) -> TensorSpec:
    """Shape and dtype of the exponents of a layer."""
    return TensorSpec((layer.in_channels,), torch.int8)


@register_structure
@dataclass(frozen=True)
class Smoothing(Structure):
    """Input channel j is multiplied by 2^-e_j before its quantizer, and the weights of it by 2^e_j.

    So a few channels of large values do not widen the scale of all others. Exponents are powers of
    two, which round nothing: the floating layer computes the same. `exponent` is int8
    [in_channels]. Layers that read the very same tensor have the same exponents.
    """

    kind = "smoothing"
    part_names = ("smoothed",)
    calibrated = frozenset({EXPONENT})
    same_for_siblings = True
    left_out_by = "smoothing=false"

    @property
    @override
    def label(self) -> str:
        return "smoothed input"

    @override
    def refuse(self, inner: Structure) -> str | None:
        if isinstance(inner, ConstantTokens):
            return f"constant tokens see no quantizer; put {inner.kind} first"
        if isinstance(inner, SplitInput):
            return f"each half has exponents of its own; put {inner.kind} first"
        return None

    @override
    def part_shapes(self, layer: LayerShape) -> Mapping[str, LayerShape]:
        return {"smoothed": layer}

    @override
    def tensors(self, layer: LayerShape) -> Mapping[str, TensorSpec]:
        return {EXPONENT: exponent_spec(layer)}

    @override
    def check_tensor(self, name: str, tensor: Tensor) -> None:
        if bool(((tensor > HIGHEST) | (tensor < -HIGHEST)).any()):
            raise FormatError(f"{name} holds values beyond {HIGHEST}")

    @override
    def observer(self, reader: Reader, siblings: Sequence[Reader]) -> Observer:
        return _ChannelPeaks(reader.layer, tuple(siblings))

    @override
    def part_weights(
        self, weight: Tensor, layer: LayerShape, tensors: Tensors
    ) -> Mapping[str, Tensor]:
        return {"smoothed": weight * _of_weight(tensors[EXPONENT], layer).to(weight.dtype)}

    @override
    def join_weights(
        self, weights: Mapping[str, Tensor], layer: LayerShape, tensors: Tensors
    ) -> Tensor:
        weight = weights["smoothed"]
        return weight * _of_weight(-tensors[EXPONENT], layer).to(weight.dtype)

    @override
    def part_inputs(self, x: Tensor, layer: LayerShape, tensors: Tensors) -> Mapping[str, Tensor]:
        return {"smoothed": x * _of_input(-tensors[EXPONENT], layer).to(x.dtype)}

    @override
    def join_inputs(
        self, x: Tensor, inputs: Mapping[str, Tensor], layer: LayerShape, tensors: Tensors
    ) -> Tensor:
        return inputs["smoothed"] * _of_input(tensors[EXPONENT], layer).to(x.dtype)

    @override
    def forward(
        self, x: Tensor, parts: Parts, layer: LayerShape, tensors: Tensors, bias: Tensor | None
    ) -> Tensor:
        smoothed = self.part_inputs(x, layer, tensors)["smoothed"]
        return layer.with_bias(parts["smoothed"](smoothed), bias)


def _of_input(exponent: Tensor, layer: LayerShape) -> Tensor:
    """Powers 2^e that multiply an input."""
    return layer.along_channels(powers_of_two(exponent))


def _of_weight(exponent: Tensor, layer: LayerShape) -> Tensor:
    """Powers 2^e that multiply a weight: [out or 1, in / groups, 1…]."""
    outputs, _, *kernel = layer.weight
    powers = powers_of_two(exponent).view(layer.groups, -1)
    if layer.groups > 1:
        powers = powers.repeat_interleave(outputs // layer.groups, 0)
    return powers.view(*powers.shape, *(1 for _ in kernel))


@dataclass(eq=False)
class _ChannelPeaks:
    """Largest magnitude of every input channel, over all runs."""

    layer: LayerShape
    siblings: tuple[Reader, ...]
    peaks: Tensor | None = field(default=None, init=False)

    def observe(self, x: Tensor, output: Callable[[], Tensor]) -> None:
        if not x.numel():
            return
        channels = x.detach().abs().movedim(self.layer.channel_dim, 0).flatten(1)
        found = channels.amax(1).float()
        self.peaks = found if self.peaks is None else torch.maximum(self.peaks, found)

    def tensors(self) -> Tensors:
        if self.peaks is None:
            raise CalibrationError("no recorded call reaches it")
        weights = torch.stack([each.channel_peaks for each in self.siblings]).amax(0)
        return {EXPONENT: smoothing_exponent(self.peaks, weights)}
