"""Stored outputs for first tokens that are the same in every prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from mezzotint.errors import CalibrationError, FormatError, PlanError
from mezzotint.formats import TensorSpec, as_bits, from_bits
from mezzotint.plan import (
    KINDS,
    LayerShape,
    Observer,
    Parts,
    Reader,
    Structure,
    Tensors,
    check_count,
    register_structure,
)
from mezzotint.runtime.token_check import OTHER, SAME

CONSTANT = "constant"
KNOWN = "known_input"

_TOLERANCE = 1e-4
"""Greatest relative difference of equal tokens; encoders round by the size of their batch."""


@register_structure
@dataclass(frozen=True)
class ConstantTokens(Structure):
    """The outputs of a Linear over [batch, tokens, in] for its first tokens are stored.

    Only the others pass through quantized weights. For text whose first token is the same in
    every prompt. `constant` is the output of the floating layer, bias included: float32 as int32
    bits, [count, out]. MixDQ (arXiv 2405.17873), BOS-aware quantization.

    `known_input` is the input that these are outputs of: bfloat16 as int16 bits, [count, in]. Where
    a call has another, sample by sample, the outputs W x₀ + b of the known x₀ do not stand for it.
    If x is nearer to x₀ than to zero, only W (x − x₀) passes through the quantized weights and is
    added; else W x does. Each layer stores its own, so that layers remain whole by themselves: two
    bytes per input.

    Attributes:
        count: of the first tokens.
        checked: whether `known_input` is stored; otherwise the constant stands for any token, as it
            did in plans before version 4.

    Raises:
        FormatError: `count` is no whole number from 1 to 65535.
    """

    count: int = 1
    checked: bool = True

    kind = "constant_tokens"
    part_names = ("others",)
    calibrated = frozenset({CONSTANT, KNOWN})
    same_for_every_prompt = True
    left_out_by = "bos=false"
    since: ClassVar[Mapping[str, tuple[int, Any]]] = {"checked": (4, False)}

    def __post_init__(self) -> None:
        check_count(self, "count", self.count)

    @property
    @override
    def label(self) -> str:
        return f"constant tokens: {self.count}" + ("" if self.checked else ", unchecked")

    @override
    def to_dict(self) -> dict[str, Any]:
        value = super().to_dict()
        if self.checked:
            del value["checked"]  # what version 4 means where nothing is said
        return value

    @property
    @override
    def known_tokens(self) -> str | None:
        return KNOWN if self.checked else None

    @override
    def part_shapes(self, layer: LayerShape) -> Mapping[str, LayerShape]:
        if not layer.is_linear:
            raise PlanError("a convolution has no constant tokens; leave constant_tokens out")
        return {"others": layer}

    @override
    def tensors(self, layer: LayerShape) -> Mapping[str, TensorSpec]:
        specs = {CONSTANT: TensorSpec((self.count, layer.out_channels), torch.int32)}
        if self.checked:
            specs[KNOWN] = TensorSpec((self.count, layer.in_channels), torch.int16)
        return specs

    @override
    def calibrated_tensors(self, layer: LayerShape) -> Mapping[str, TensorSpec]:
        return self.tensors(layer)

    @override
    def check_tensor(self, name: str, tensor: Tensor) -> None:
        dtype = torch.float32 if name == CONSTANT else torch.bfloat16
        if not bool(from_bits(tensor, dtype).isfinite().all()):
            raise FormatError(f"{name} holds NaN or infinite values")

    @override
    def placeholder(self, layer: LayerShape, x: Tensor) -> Tensors:
        known = as_bits(x[0, : self.count].detach().to(torch.bfloat16))
        return {**super().placeholder(layer, x), **({KNOWN: known} if self.checked else {})}

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
        constant = constant.expand(x.shape[0], -1, -1)
        if KINDS not in tensors:
            return torch.cat([constant, layer.with_bias(parts["others"](rest), bias)], 1)
        kinds, first = tensors[KINDS].unsqueeze(-1), x[:, : self.count]
        known = from_bits(tensors[KNOWN], torch.bfloat16)
        seen = torch.where(kinds == OTHER, first, (first.float() - known).to(x.dtype))
        output = parts["others"](torch.cat([seen, rest], 1))
        begun, others = output[:, : self.count], output[:, self.count :]
        begun = torch.where(kinds == OTHER, layer.with_bias(begun, bias), begun + constant)
        begun = torch.where(kinds == SAME, constant, begun)
        return torch.cat([begun, layer.with_bias(others, bias)], 1)


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
        assert self.sample is not None
        known = self.sample[: self.count].to(torch.bfloat16)
        return {CONSTANT: as_bits(self.constant), KNOWN: as_bits(known)}


def _same(tokens: Tensor, expected: Tensor) -> bool:
    """True where every sample of [batch, tokens, features] equals [tokens, features]."""
    tolerance = max(_TOLERANCE, 4 * torch.finfo(expected.dtype).eps)
    magnitudes = expected.float().abs()
    # The median and not the peak: beside one huge value all others would pass for equal.
    allowed = tolerance * (magnitudes + magnitudes.median())
    return bool(((tokens.float() - expected.float()).abs() <= allowed).all())
