"""Stored outputs for first tokens that are the same in every prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from typing_extensions import override

from mezzotint.errors import CalibrationError, FormatError, PlanError
from mezzotint.formats import TensorSpec, as_bits, from_bits
from mezzotint.plan import (
    LayerShape,
    Observer,
    Parts,
    Reader,
    Structure,
    Tensors,
    check_count,
    register_structure,
)

CONSTANT = "constant"

_TOLERANCE = 1e-4
"""Greatest relative difference of equal tokens; encoders round by the size of their batch."""


@register_structure
@dataclass(frozen=True)
class ConstantTokens(Structure):
    """The outputs of a Linear over [batch, tokens, in] for its first tokens are stored.

    Only the others pass through quantized weights. For text whose first token is the same in
    every prompt. `constant` is the output of the floating layer, bias included: float32 as int32
    bits, [count, out]. MixDQ (arXiv 2405.17873), BOS-aware quantization.

    Attributes:
        count: of the first tokens.

    Raises:
        FormatError: `count` is no whole number from 1 to 65535.
    """

    count: int = 1

    kind = "constant_tokens"
    part_names = ("others",)
    calibrated = frozenset({CONSTANT})
    same_for_every_prompt = True
    left_out_by = "bos=false"

    def __post_init__(self) -> None:
        check_count(self, "count", self.count)

    @property
    @override
    def label(self) -> str:
        return f"constant tokens: {self.count}"

    @override
    def part_shapes(self, layer: LayerShape) -> Mapping[str, LayerShape]:
        if not layer.is_linear:
            raise PlanError("a convolution has no constant tokens; leave constant_tokens out")
        return {"others": layer}

    @override
    def tensors(self, layer: LayerShape) -> Mapping[str, TensorSpec]:
        return {CONSTANT: TensorSpec((self.count, layer.out_channels), torch.int32)}

    @override
    def check_tensor(self, name: str, tensor: Tensor) -> None:
        if not bool(from_bits(tensor, torch.float32).isfinite().all()):
            raise FormatError(f"{name} holds NaN or infinite values")

    @override
    def observer(self, reader: Reader, siblings: Sequence[Reader]) -> Observer:
        return _Constancy(self.count)

    @override
    def part_weights(
        self, weight: Tensor, layer: LayerShape, tensors: Tensors
    ) -> Mapping[str, Tensor]:
        return {"others": weight}

    @override
    def join_weights(
        self, weights: Mapping[str, Tensor], layer: LayerShape, tensors: Tensors
    ) -> Tensor:
        return weights["others"]

    @override
    def part_inputs(self, x: Tensor, layer: LayerShape, tensors: Tensors) -> Mapping[str, Tensor]:
        if x.ndim != 3 or x.shape[1] < self.count:
            raise PlanError(
                f"an input of shape {tuple(x.shape)} met a layer of constant tokens, which takes "
                f"[batch, tokens, features] with {self.count} tokens or more; leave "
                "constant_tokens out for it"
            )
        return {"others": x[:, self.count :]}

    @override
    def join_inputs(
        self, x: Tensor, inputs: Mapping[str, Tensor], layer: LayerShape, tensors: Tensors
    ) -> Tensor:
        return torch.cat([x[:, : self.count], inputs["others"]], 1)

    @override
    def forward(
        self, x: Tensor, parts: Parts, layer: LayerShape, tensors: Tensors, bias: Tensor | None
    ) -> Tensor:
        rest = self.part_inputs(x, layer, tensors)["others"]
        constant = from_bits(tensors[CONSTANT], torch.float32).to(x.dtype)
        others = layer.with_bias(parts["others"](rest), bias)
        return torch.cat([constant.expand(x.shape[0], -1, -1), others], 1)


@dataclass
class _Constancy:
    """Shows whether the first tokens are constant, and what comes of them.

    A causal text encoder gives every prompt the same first embedding; others, such as T5, do not.
    Tokens are accepted only where the runs show it: they are the same in all samples of all runs,
    value by value, up to the rounding of their dtype, while other tokens differ.
    """

    count: int
    refusal: str | None = field(default=None, init=False)
    sample: Tensor | None = field(default=None, init=False)
    constant: Tensor | None = field(default=None, init=False)
    prompts_differ: bool = field(default=False, init=False)

    def observe(self, x: Tensor, output: Callable[[], Tensor]) -> None:
        if self.refusal is not None or 0 in x.shape[:1]:
            return
        if x.ndim != 3:
            self.refusal = f"its input of shape {tuple(x.shape)} is not [batch, tokens, features]"
        elif x.shape[1] <= self.count:
            tokens = "a single token" if x.shape[1] == 1 else f"{x.shape[1]} tokens"
            self.refusal = f"its input has {tokens}, of which every prompt changes the last"
        elif not bool(x.isfinite().all()):
            self.refusal = "its input holds NaN or infinite values"
        else:
            self._compare(x, output)

    def _compare(self, x: Tensor, output: Callable[[], Tensor]) -> None:
        if self.sample is None:
            self.sample = x[0].clone()
            self.constant = output()[0, : self.count].to(torch.float32, copy=True)
        first, others = self.sample[: self.count], self.sample[self.count :]
        if not _same(x[:, : self.count], first):
            which = "first token is" if self.count == 1 else f"first {self.count} tokens are"
            self.refusal = f"its {which} not the same in all prompts and steps"
        if x.shape[1:] != self.sample.shape or not _same(x[:, self.count :], others):
            self.prompts_differ = True

    def tensors(self) -> Tensors:
        if self.refusal is not None:
            raise CalibrationError(self.refusal)
        if self.constant is None:
            raise CalibrationError("no recorded call reaches it")
        if not self.prompts_differ:
            raise CalibrationError(
                "all recorded prompts are alike, which shows nothing; record two different prompts"
            )
        return {CONSTANT: as_bits(self.constant)}


def _same(tokens: Tensor, expected: Tensor) -> bool:
    """True where every sample of [batch, tokens, features] equals [tokens, features]."""
    tolerance = max(_TOLERANCE, 4 * torch.finfo(expected.dtype).eps)
    magnitudes = expected.float().abs()
    # The median and not the peak: beside one huge value all others would pass for equal.
    allowed = tolerance * (magnitudes + magnitudes.median())
    return bool(((tokens.float() - expected.float()).abs() <= allowed).all())
