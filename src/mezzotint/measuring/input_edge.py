"""The edge at which a quantizer's input meets its layer: where changes of inputs are projected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mezzotint.errors import FormatError
from mezzotint.formats import ActivationFormat
from mezzotint.measuring.step_table import StepTable
from mezzotint.plan import Choice, Structure
from mezzotint.runtime import InputRange, Operation, check_input_ranges
from mezzotint.runtime.structures.smoothing import powers_of_two


@dataclass(frozen=True)
class InputCandidate:
    """Rounding of a layer's input.

    Attributes:
        format: None leaves the input floating.
        ranges: one per quantizer where the format is static.
        exponents: of `Smoothing` within the base model's structures, for each quantizer; empty
            where the candidate does not smooth its input.
        steps: one table per quantizer where the format has scales for each timestep.
    """

    format: ActivationFormat | None = None
    ranges: tuple[InputRange, ...] = ()
    exponents: tuple[tuple[int, ...], ...] = ()
    steps: tuple[StepTable, ...] = ()

    def check(self, structures: tuple[Structure, ...]) -> None:
        """Refuse a calibrated format that is not calibrated for a layer of these structures.

        Raises:
            FormatError: a static format lacks a range, or one per step a table.
        """
        if self.format is None:
            return
        if not self.format.per_step:
            choice = Choice("int8/channel", self.format.name, structures)
            check_input_ranges(choice, self.ranges)
            return
        parts = Choice("int8/channel", structures=structures).parts
        if len(self.steps) != parts:
            raise FormatError(
                f"an input of {self.format} has {len(self.steps)} tables of scales for {parts} "
                "quantizers; give one for each"
            )

    def rounded(
        self, x: Tensor, quantizer: int, operation: Operation, timestep: Tensor | None
    ) -> Tensor:
        """The values of the codes of `x`, float32; `x` itself where it stays floating.

        Args:
            x: input of a quantizer.
            quantizer: its index.
            operation: of the layer.
            timestep: of the call, float32 [1] or one for each sample; None where it has none.
        """
        activation = self.format
        if activation is None or x.numel() == 0:
            return x.float()
        if not self.exponents:
            return self._roundtrip(activation, x, quantizer, operation, timestep)
        exponent = torch.tensor(self.exponents[quantizer], dtype=torch.int8, device=x.device)
        down, up = (
            powers_of_two(each).view(-1, *(1,) * (-operation.channel_dim - 1))
            for each in (-exponent, exponent)
        )
        smoothed = x.detach() * down.to(x.dtype)
        return self._roundtrip(activation, smoothed, quantizer, operation, timestep).mul_(up)

    def _roundtrip(
        self,
        activation: ActivationFormat,
        x: Tensor,
        quantizer: int,
        operation: Operation,
        timestep: Tensor | None,
    ) -> Tensor:
        if activation.per_step:
            assert timestep is not None, "asked for by layers that have tables"
            return self.steps[quantizer].rounded(x.detach().float(), timestep, activation)
        if activation.static:
            found = self.ranges[quantizer]
            scale, zero_point = activation.range_parameters(found.low, found.high, x.device)
        else:
            scale, zero_point = activation.dynamic_parameters(x, operation.scale_dims(activation))
        return activation.roundtrip(x.detach().float(), scale, zero_point)


@dataclass(eq=False)
class InputEdge:
    """The inputs of one layer, on their way into its quantizers.

    Attributes:
        operation: of the layer.
        base: rounding of the base model; gradients pass straight through it.
        candidates: name → rounding to be compared with it.
        sums: name → ⟨∂(v·ŷ)/∂x, Δx⟩ over all runs of the layer and all its quantizers, float64 [].
        timestep: of the call that is run and differentiated; None where nobody asks for it.
    """

    operation: Operation
    base: InputCandidate
    candidates: Mapping[str, InputCandidate]
    sums: dict[str, Tensor] = field(default_factory=dict)
    timestep: Tensor | None = None

    @property
    def timed(self) -> bool:
        """True where a rounding depends on the timestep."""
        return any(each.steps for each in (self.base, *self.candidates.values()))

    def passed(self, x: Tensor, quantizer: int) -> Tensor:
        """`x` as the quantizer's layer is given it; its gradient is seen on its way back."""
        if not self.candidates and self.base.format is None:
            return x
        # An input that needs no gradient, as the model's own, is to be seen all the same.
        anchor = torch.zeros((), device=x.device, requires_grad=True)
        result: Tensor = _Passing.apply(x, anchor, self, quantizer)  # type: ignore[no-untyped-call]
        return result

    def project(self, x: Tensor, gradient: Tensor, quantizer: int) -> None:
        """Add what each candidate changes."""
        base = self.base.rounded(x, quantizer, self.operation, self.timestep)
        for name, candidate in self.candidates.items():
            if candidate == self.base:
                continue
            change = candidate.rounded(x, quantizer, self.operation, self.timestep) - base
            found = change.mul_(gradient).sum(dtype=torch.float64)
            self.sums[name] = self.sums[name] + found if name in self.sums else found


class _Passing(torch.autograd.Function):
    """The input as the base model rounds it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor, edge: InputEdge, quantizer: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.edge, ctx.quantizer = edge, quantizer
        if edge.base.format is None:
            return x.view_as(x)
        return edge.base.rounded(x, quantizer, edge.operation, edge.timestep).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None, None]:
        (x,) = ctx.saved_tensors
        ctx.edge.project(x, gradient, ctx.quantizer)
        return gradient if ctx.needs_input_grad[0] else None, None, None, None
