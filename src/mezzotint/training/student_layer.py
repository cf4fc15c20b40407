"""A layer that computes as its packed form will, with all that is stored of it learned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from mezzotint.formats import ActivationFormat, Grid, MixedGrid, from_bits
from mezzotint.plan import Plan, Tensors
from mezzotint.runtime import (
    Calibration,
    GridValues,
    InputRange,
    StepScales,
    operation_of,
    own_tensors,
    shape_of,
)
from mezzotint.runtime.composition import at_top, join_weights, joined_output, part_weights
from mezzotint.runtime.composition import under as tensors_under
from mezzotint.runtime.encode import rounded_part
from mezzotint.runtime.layer_tensors import dotted
from mezzotint.runtime.pack import corrected_bias
from mezzotint.runtime.structures.step_scales import SCALE, TIMESTEP, ZERO_POINT, step_places
from mezzotint.runtime.structures.step_widths import BITS
from mezzotint.training.learned_grid import LearnedGrid, into_cells, mean_step
from mezzotint.training.learned_inputs import (
    DynamicInput,
    FloatingInput,
    LearnedInput,
    TimestepOf,
)
from mezzotint.training.low_rank import LowRank, Weight
from mezzotint.training.options import Training


class StudentLayer(nn.Module):
    """The computation of one packed layer on learned weights, scales and zero points.

    It starts as the layer would be packed, and leaves the floating layer alone.

    Attributes:
        name: of the layer.
        layer: floating.
        choice: formats and structures.
        weight: to be rounded; None where the weights stay as they are packed.
        grids: of the quantizers; empty likewise.
        inputs: roundings of the quantizers' inputs.
        step: mean distance of neighbouring values of the grid, in units of the layer's weight.
        bias: that the layer is packed with, where the plan corrects it and the weights are trained.
    """

    def __init__(
        self, name: str, layer: nn.Linear | nn.Conv2d, plan: Plan, calibration: Calibration,
        options: Training, generator: torch.Generator,
    ) -> None:  # fmt: skip
        """Start as `layer` is packed after the plan; `generator` draws LoRA's first factors."""
        super().__init__()
        self.name, self._layer, self.choice = name, (layer,), plan[name]
        self.shape, self.operation = shape_of(layer), operation_of(layer)
        floating, encoding = layer.weight.detach(), plan.encoding_of(name)
        known = calibration.tensors.get(name, {})
        self.tensors = own_tensors(self.choice.structures, floating, self.shape, known)
        self.structures = tuple(s for s in self.choice.structures if not isinstance(s, StepScales))
        formats = self.choice.weight_formats
        assert formats, "only quantized layers have students"
        parts = part_weights(floating, self.structures, self.shape, self.tensors)
        starts = []
        for form, part, each in zip(
            formats, parts, calibration.of_parts(name, len(parts)), strict=True
        ):
            grid, codes = rounded_part(form, part, encoding, each)
            starts.append((grid, codes if isinstance(codes, Tensor) else torch.cat([*codes])))
        values = [g.values(c).view(p.shape) for p, (g, c) in zip(parts, starts, strict=True)]
        self.weight: Weight | None = None
        self.grids = nn.ModuleList()
        self.fixed: tuple[Tensor, ...] = ()
        self.bias: Tensor | None = None
        self.step = _step(floating, parts, [grid for grid, _ in starts])
        scales_only = options.train == "scales"
        if scales_only or min(form.bits for form in formats) < options.untrained_bits:
            if encoding.bias_correction and layer.bias is not None:
                self.bias = corrected_bias(name, layer, floating, values, self.choice, calibration)
            self.grids.extend(LearnedGrid(g, c if scales_only else None) for g, c in starts)
            begun = floating
            if not scales_only:
                moved = [into_cells(p, *each) for p, each in zip(parts, starts, strict=True)]
                if any(m is not p for m, p in zip(moved, parts, strict=True)):
                    begun = join_weights(moved, self.structures, self.shape, self.tensors)
            self.weight = _weight(begun, options, generator)
            if options.train == "lora" and options.lora_init == "svd":
                rounded = join_weights(values, self.structures, self.shape, self.tensors)
                assert self.weight.lora is not None
                self.weight.lora.start_from(begun.float() - rounded)
        else:
            self.fixed = tuple(values)
        self.inputs = nn.ModuleList(self._inputs(calibration.input_ranges.get(name, ())))
        activation = self.choice.activation_format
        if activation is not None and not scales_only:
            narrow = activation.width < options.untrained_bits
            self.inputs.requires_grad_(narrow or self.weight is not None)

    @property
    def layer(self) -> nn.Linear | nn.Conv2d:
        """The floating layer."""
        return self._layer[0]

    def _inputs(self, ranges: Sequence[InputRange]) -> Iterator[nn.Module]:
        activation, device = self.choice.activation_format, self.layer.weight.device
        for index in range(self.choice.parts):
            if activation is None:
                yield FloatingInput()
            elif activation.static:
                low, high = ranges[index].low, ranges[index].high
                yield LearnedInput(activation, *activation.range_parameters(low, high, device))
            elif activation.per_step:
                yield _per_step(activation, self._tables(index), device)
            else:
                yield DynamicInput(activation, self.operation)

    def _tables(self, index: int) -> Tensors:
        path = step_places(self.choice.structures, self.shape)[index]
        return at_top(tensors_under(self.tensors, path) if path else self.tensors)

    def rounded_weights(self) -> tuple[Tensor, ...]:
        """Ŵ of each quantizer, float32; differentiable in all that is learned of it."""
        if self.weight is None:
            return self.fixed
        # Sums of products decide over codes: within autocast as without.
        with torch.autocast(self.layer.weight.device.type, enabled=False):
            parts = part_weights(self.weight(), self.structures, self.shape, self.tensors)
            return tuple(
                grid(part).contiguous(memory_format=self._memory_format)
                for grid, part in zip(self.grids, parts, strict=True)
            )

    @property
    def _memory_format(self) -> torch.memory_format:
        four = len(self.shape.weight) == 4
        return torch.channels_last if four else torch.contiguous_format

    def output(self, x: Tensor, weights: Sequence[Tensor], timestep: TimestepOf) -> Tensor:
        """The layer's output of `x`.

        Args:
            x: its input.
            weights: as `rounded_weights` gives them.
            timestep: tells that of the denoiser's call.
        """

        def part(index: int, x: Tensor, bias: Tensor | None) -> Tensor:
            rounded = self.inputs[index](x, timestep)
            return self.operation.apply(rounded, weights[index].to(x.dtype), bias)

        outputs = [partial(part, index) for index in range(len(weights))]
        bias = self.layer.bias
        return joined_output(x, outputs, bias, self.structures, self.shape, self.tensors)

    def grid_values(self) -> tuple[GridValues, ...]:
        """The weights as they are to be packed; none where they stay as the plan has them."""
        if self.weight is None:
            return ()
        found = []
        for grid, values in zip(self.grids, self.rounded_weights(), strict=True):
            assert isinstance(grid, LearnedGrid)
            parameters = {name: each.detach() for name, each in grid.grid.parameters.items()}
            order = grid.start.order if isinstance(grid.start, MixedGrid) else None
            found.append(GridValues(values.detach().contiguous(), parameters, order))
        return tuple(found)

    def input_ranges(self) -> tuple[InputRange, ...]:
        """The ranges of static inputs; none where there are none."""
        if not self.choice.static:
            return ()
        return tuple(each.range() for each in self.inputs if isinstance(each, LearnedInput))

    def step_tables(self) -> Tensors:
        """The tables of scales for each timestep, by their names within the layer."""
        if not self.choice.steps:
            return {}
        paths = step_places(self.choice.structures, self.shape)
        return {
            dotted(path, name): tensor
            for path, each in zip(paths, self.inputs, strict=True)
            if isinstance(each, LearnedInput)
            for name, tensor in each.tables().items()
        }


def _per_step(activation: ActivationFormat, tables: Tensors, device: torch.device) -> LearnedInput:
    timesteps, scale = (
        from_bits(tables[name].to(device), torch.float32) for name in (TIMESTEP, SCALE)
    )
    bits = tables[BITS].to(device).float() if BITS in tables else None
    return LearnedInput(activation, scale, tables[ZERO_POINT].to(device).float(), timesteps, bits)


def _weight(start: Tensor, options: Training, generator: torch.Generator) -> Weight:
    if options.train == "lora":
        return Weight(start, trained=False, lora=LowRank(start, options.rank, generator))
    return Weight(start, trained=options.train == "weights")


def _step(weight: Tensor, parts: Sequence[Tensor], grids: Sequence[Grid]) -> float:
    """Mean distance of neighbouring values, as parts have them, in units of the layer's weight."""
    found = 0.0
    for part, grid in zip(parts, grids, strict=True):
        found += mean_step(grid) / max(_rms(part), torch.finfo(torch.float32).tiny) * part.numel()
    return found * _rms(weight) / sum(part.numel() for part in parts)


def _rms(tensor: Tensor) -> float:
    return float(tensor.detach().float().square().mean().sqrt())
