"""A few samples of every layer's input, of all denoising steps, and how they would be rounded."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mezzotint._time_argument import TimeArgument
from mezzotint.calibration.step_ranges import calls_by_timestep
from mezzotint.calibration.watching import watch_inputs
from mezzotint.errors import CalibrationError
from mezzotint.formats import ActivationFormat
from mezzotint.measuring import StepTable
from mezzotint.models import Call, batch_size, rows_of
from mezzotint.plan import Choice, LayerShape
from mezzotint.runtime import Calibration, InputRange, shape_of

SAMPLES = 32
"""Samples of a layer's input, all denoising steps together; at least one of each step."""

MOST_ROWS = 4096
"""Rows that are kept of a Linear's input."""

MOST_BYTES = 2**29
"""Inputs of layers that are kept at a time; the calls are run again for the others."""


@dataclass(frozen=True, eq=False)
class SampledInputs:
    """Samples of one quantizer's input.

    Attributes:
        x: float32 [n, in] of a Linear, [n, in, h, w] of a Conv2d.
        timesteps: of each of them, float32 [n].
    """

    x: Tensor
    timesteps: Tensor


def sampled_inputs(
    denoiser: nn.Module,
    choices: Mapping[str, Choice],
    calls: Sequence[Call],
    calibration: Calibration,
    sizes: Mapping[str, int],
) -> Iterator[tuple[str, SampledInputs]]:
    """Every layer's samples, one after another; no more are kept in memory than `MOST_BYTES`.

    Args:
        denoiser: the floating model.
        choices: layers of one quantizer each.
        calls: recorded calls.
        calibration: what the structures have calibrated.
        sizes: elements of every layer's input in one call.

    Raises:
        CalibrationError: samples of other timesteps cannot be told apart, or a layer has none.
    """
    few = few_samples(_steps(denoiser, calls))
    kept = sum(len(call.output) for _, call in few if call.output is not None)
    share = kept / max(len(call.output) for call in calls if call.output is not None)
    for names in _groups({name: sizes[name] * share * 4 for name in choices}):
        watched = {
            name: _Sampler(shape_of(denoiser.get_submodule(name)), [step for step, _ in few])
            for name in names
        }
        shown = {name: choices[name] for name in names}
        watch_inputs(denoiser, shown, watched, [call for _, call in few], calibration.tensors)
        for name in names:
            yield name, watched.pop(name).found(name)


def _steps(denoiser: nn.Module, calls: Sequence[Call]) -> Mapping[float, Sequence[Call]]:
    """Timestep → its calls; all are of one where the denoiser is called without any."""
    if TimeArgument.of(denoiser.forward) is None:
        return {0.0: calls}
    return calls_by_timestep(denoiser, calls)


def few_samples(steps: Mapping[float, Sequence[Call]]) -> list[tuple[float, Call]]:
    """Some samples of every step, walking over those of its first call.

    Args:
        steps: timestep → its calls.
    """
    count = math.ceil(SAMPLES / len(steps))
    found = []
    for index, (timestep, calls) in enumerate(steps.items()):
        call, rows = calls[0], batch_size(calls[0])
        if rows is not None and rows > count:
            call = rows_of(call, sorted({(index * count + each) % rows for each in range(count)}))
        found.append((timestep, call))
    return found


def _groups(sizes: Mapping[str, float]) -> Iterator[list[str]]:
    """Layers one after another, in groups whose bytes are within the bound, or of one layer."""
    group: list[str] = []
    held = 0.0
    for name, size in sizes.items():
        if group and held + size > MOST_BYTES:
            yield group
            group, held = [], 0.0
        group.append(name)
        held += size
    if group:
        yield group


@dataclass(eq=False)
class _Sampler:
    """Keeps what one layer's quantizer is given.

    Attributes:
        shape: of the layer.
        steps: timestep of each call, in their order.
    """

    shape: LayerShape
    steps: Sequence[float]
    seen: list[Tensor] = field(default_factory=list, init=False)
    of_call: list[int] = field(default_factory=list, init=False)
    call: int = field(default=0, init=False)

    def see(self, parts: tuple[Tensor, ...]) -> None:
        (x,) = parts
        most = max(1, MOST_ROWS // len(self.steps))
        kept = x.reshape(-1, x.shape[-1]) if self.shape.is_linear else x
        if self.shape.is_linear and len(kept) > most:
            kept = kept[torch.linspace(0, len(kept) - 1, most).long()]
        self.seen.append(kept.detach().float().clone())
        self.of_call += [self.call] * len(kept)

    def end_call(self) -> None:
        self.call += 1

    def found(self, name: str) -> SampledInputs:
        """All that was kept.

        Raises:
            CalibrationError: nothing was; the layer is named.
        """
        if not self.seen:
            raise CalibrationError(
                f"layer {name}: none of the sampled calls gives its quantizer an input, as all its "
                "tokens are constant or it is not called; sample other prompts, or keep it floating"
            )
        x = torch.cat(self.seen)
        steps = torch.tensor([self.steps[call] for call in self.of_call], dtype=torch.float32)
        return SampledInputs(x, steps.to(x.device))


@dataclass(frozen=True, eq=False)
class InputRounding:
    """Rounding of sampled inputs as the packed layer will round its input.

    Attributes:
        activation: the codes; None for inputs that stay floating.
        shape: of the layer.
        timesteps: of the samples.
        table: of scales for each timestep, where the layer has them.
        static: range of a static input.
    """

    activation: ActivationFormat | None
    shape: LayerShape
    timesteps: Tensor
    table: StepTable | None = None
    static: InputRange | None = None

    @classmethod
    def of(
        cls, name: str, choice: Choice, shape: LayerShape, timesteps: Tensor, found: Calibration
    ) -> InputRounding:
        """The rounding of a layer of one quantizer, calibrated."""
        tables = StepTable.each_of(choice.structures, shape, found.tensors.get(name, {}))
        (static,) = found.input_ranges.get(name, (None,))
        table = tables[0] if tables else None
        return cls(choice.activation_format, shape, timesteps, table, static)

    def __call__(self, x: Tensor) -> Tensor:
        """The samples, rounded and decoded again."""
        if self.activation is None:
            return x
        if self.table is not None:
            return self.table.rounded(x, self.timesteps, self.activation)
        if self.static is not None:
            scale, zero_point = self.activation.range_parameters(
                self.static.low, self.static.high, x.device
            )
        else:
            dims = (-1,) if self.shape.is_linear else (-3, -2, -1)
            scale, zero_point = self.activation.dynamic_parameters(x, dims)
        return self.activation.roundtrip(x, scale, zero_point)
