"""One layer of a denoiser that is being probed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor, nn

from mezzotint.formats import FLOAT
from mezzotint.formats.chunks import PIECE
from mezzotint.measuring.input_edge import InputCandidate, InputEdge
from mezzotint.models.patching import patched
from mezzotint.plan import Choice, Structure, Tensors
from mezzotint.runtime import operation_of, shape_of
from mezzotint.runtime.floating_parts import FloatingParts
from mezzotint.runtime.lazy_weight import LazyWeight, dense

CandidateWeight: TypeAlias = Callable[[str, Choice], tuple[Tensor, Tensor | None]]
"""Dequantized weight of a layer under a choice, and the change of its bias [out] that goes with it.

Only the weight format and the structures of the choice count. Neither tensor is written to.
"""


@dataclass(frozen=True)
class LayerCandidates:
    """Changes of one layer that are asked for.

    Attributes:
        weights: weight formats, by name; `float` is the floating weight.
        inputs: name → rounding of the input.
        structures: of the layer, in which it is probed.
        variants: name among `weights` → weight format and structures, for those whose weight is
            rounded in others.

    Raises:
        FormatError: a weight format is unknown, or does not go with the structures.
    """

    weights: tuple[str, ...] = ()
    inputs: Mapping[str, InputCandidate] = field(default_factory=dict)
    structures: tuple[Structure, ...] = ()
    variants: Mapping[str, Choice] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for weight in self.weights:
            self.choice(weight)

    @property
    def as_choice(self) -> Choice:
        """Some choice of these structures."""
        return Choice("int8/channel", structures=self.structures)

    def choice(self, weight: str) -> Choice:
        """The choice that a weight is asked for by."""
        if weight in self.variants:
            return self.variants[weight]
        return Choice(weight, structures=() if weight == FLOAT else self.structures)


@dataclass(frozen=True)
class Base:
    """Formats of one layer in the base model, around which it is probed.

    Attributes:
        weight: the choice whose weight formats and structures it has.
        input: rounding of its input.
    """

    weight: Choice = field(default_factory=Choice)
    input: InputCandidate = field(default_factory=InputCandidate)


@dataclass(eq=False)
class Memory:
    """Bytes that may be held to save time, shared by all layers.

    Attributes:
        left: of them; None for no bound.
    """

    left: int | None

    def take(self, size: int) -> bool:
        """Return whether so many are left, which then are taken."""
        if self.left is None:
            return True
        fits = size <= self.left
        self.left -= size if fits else 0
        return fits


@dataclass(eq=False)
class ProbedLayer:
    """A layer that computes as its packed form would, with floating parts, and sees gradients.

    Attributes:
        name: of the layer.
        layer: floating; as before at the end.
        candidates: what is asked for.
        tensors: of its structures, as `own_tensors` gives them.
        base: around which it is probed.
        weight_of: gives candidate weights; asked when a gradient arrives.
        memory: for changes of weights that are kept from one gradient to the next.
    """

    name: str
    layer: nn.Linear | nn.Conv2d
    candidates: LayerCandidates
    tensors: Tensors
    base: Base
    weight_of: CandidateWeight
    memory: Memory

    def __post_init__(self) -> None:
        self._kept: dict[str, tuple[Tensor, Tensor | None]] = {}
        self._edge = InputEdge(operation_of(self.layer), self.base.input, self.candidates.inputs)
        self._floating = self.layer.weight
        self._products: dict[str, Tensor] = {}
        self._shifts: dict[str, Tensor] = {}

    @contextmanager
    def probing(self) -> Iterator[None]:
        """Put stand-ins in the place of weight and bias, and compute as the packed form does.

        Only the stand-ins require gradients. Another layer that shares a parameter keeps it; a
        layer that runs several times, or has several names, sees the sum of its gradients.
        """
        layer, shape = self.layer, shape_of(self.layer)
        weight, bias = layer.weight, layer.bias
        base, self._base_shift = self._candidate(self.base.weight)
        if isinstance(weight, LazyWeight) and self.base.weight.quantized:
            base = self._lazy_base(weight)
        self._weight = nn.Parameter(base.to(weight.dtype))
        zeros = torch.zeros(shape.out_channels, dtype=weight.dtype, device=weight.device)
        start = zeros if bias is None else bias.detach()
        if self._base_shift is not None:
            start = (start + self._base_shift).to(weight.dtype)
        self._bias = nn.Parameter(start)
        hook = self._weight.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
            self._arrived
        )
        parts = FloatingParts(self.candidates.structures, shape, self.tensors, self._part_output)
        try:
            layer.weight = self._weight  # for whoever reads it directly
            with patched({layer: partial(self._forward, parts)}):
                yield
        finally:
            hook.remove()
            layer.weight = weight
            self.clear()
            self._kept.clear()
            del self._weight, self._bias

    @property
    def timed(self) -> bool:
        """True where a rounding of its input depends on the timestep."""
        return self._edge.timed

    def begin(self, timestep: Tensor | None) -> None:
        """Take note of the timestep of the call that is run next, where it is known."""
        self._edge.timestep = timestep

    def clear(self) -> None:
        """Forget what the last backward pass has brought."""
        self._products.clear()
        self._shifts.clear()
        self._edge.sums.clear()
        self._weight.grad = self._bias.grad = None

    def weight_sums(self) -> dict[str, float]:
        """Weight format → ⟨ΔW, ∂(v·ŷ)/∂W⟩ + ⟨Δb, ∂(v·ŷ)/∂b⟩; 0 where no gradient arrived."""
        found = {}
        for name in self.candidates.weights:
            total = float(self._products.get(name, 0.0))
            if name in self._shifts and self._bias.grad is not None:
                total += float((self._shifts[name].double() * self._bias.grad.double()).sum())
            found[name] = total
        return found

    def input_sums(self) -> dict[str, float]:
        """Name of the input → ⟨Δx, ∂(v·ŷ)/∂x⟩; 0 where no gradient arrived."""
        return {name: float(self._edge.sums.get(name, 0.0)) for name in self.candidates.inputs}

    def _forward(self, parts: FloatingParts, input: Tensor) -> Tensor:  # noqa: A002 - as theirs
        return parts.forward(input, self._weight, self._bias)

    def _part_output(self, index: int, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self._edge.operation.apply(self._edge.passed(x, index), weight, bias)

    def _lazy_base(self, weight: LazyWeight) -> Tensor:
        """The weight in the base model, decoded where it is read, as the floating one is read."""

        def decoded() -> Tensor:
            found, _ = self._candidate(self.base.weight)
            return found.to(weight.device, weight.dtype)

        return LazyWeight(tuple(weight.shape), weight.dtype, weight.device, decoded)

    def _candidate(self, choice: Choice) -> tuple[Tensor, Tensor | None]:
        """Weight and change of the bias against the floating one."""
        if not choice.quantized:
            return self._floating.detach(), None
        standing = self.layer.weight
        self.layer.weight = self._floating  # whoever encodes the layer now has to find its own
        try:
            return self.weight_of(self.name, choice)
        finally:
            self.layer.weight = standing

    def _arrived(self, weight: Tensor) -> None:
        """Hook that compares every candidate with the gradient, which is then freed."""
        gradient, weight.grad = weight.grad, None
        assert gradient is not None
        self.compare(gradient)

    def compare(self, gradient: Tensor) -> None:
        """Take the product of every candidate's change with a gradient of the weight.

        Only while the layer is being probed, where a backward pass has this done.

        Args:
            gradient: of the weight's shape.
        """
        pieces = torch.split(gradient.float().flatten(), PIECE)
        asked = [
            name
            for name in self.candidates.weights
            if self.candidates.choice(name) != self.base.weight
        ]
        base = None
        if not self._kept.keys() >= set(asked):
            base = dense(
                self._weight.detach()
            ).float()  # once for all, where it is decoded or on disk
        for name in asked:
            change, shift = self._change(name, base)
            self._products[name] = _product(torch.split(change.flatten(), PIECE), pieces)
            if shift is not None:
                self._shifts[name] = shift

    def _change(self, name: str, base: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Change of the weight, float32, and of the bias, both against the base model's.

        Args:
            name: of the weight.
            base: weight in the base model, float32; None where all changes are kept.
        """
        if name in self._kept:
            return self._kept[name]
        assert base is not None, "or all changes are kept"
        value, shift = self._candidate(self.candidates.choice(name))
        change = value.to(base.device, torch.float32) - base
        found = change, _difference(shift, self._base_shift)
        if self.memory.take(change.nbytes):
            self._kept[name] = found
        return found


def _difference(shift: Tensor | None, base: Tensor | None) -> Tensor | None:
    if base is None:
        return shift
    return -base if shift is None else shift - base


def _product(change: Sequence[Tensor], gradient: Sequence[Tensor]) -> Tensor:
    """⟨change, gradient⟩, float64 [], of vectors in pieces that are short enough for float32."""
    products = [torch.dot(*pieces) for pieces in zip(change, gradient, strict=True)]
    return torch.stack(products).double().sum()
