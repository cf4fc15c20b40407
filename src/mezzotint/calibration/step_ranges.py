"""Scales and zero points of inputs for each timestep of the denoiser, each found by itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from mezzotint._progress import track
from mezzotint.calibration.clipping import InputHistogram
from mezzotint.calibration.observed_ranges import input_ranges
from mezzotint.calibration.watching import watch_inputs
from mezzotint.errors import CalibrationError
from mezzotint.formats import ActivationFormat, RangeSearch, as_bits
from mezzotint.models import Call, batch_size, rows_of
from mezzotint.plan import Choice, Tensors
from mezzotint.runtime import InputRange, StepScales, StepWidths, shape_of
from mezzotint.runtime.layer_tensors import dotted
from mezzotint.runtime.structures.step_scales import SCALE, TIMESTEP, ZERO_POINT, step_places
from mezzotint.runtime.timestep import TimestepReader

SEARCH = RangeSearch(steps=80, lowest=0.21, power=2.4)
"""Ratios by which both ends of a range are shrunk, and the power of errors that are summed."""


def step_scales(
    denoiser: nn.Module,
    choices: Mapping[str, Choice],
    calls: Sequence[Call],
    tensors: Mapping[str, Tensors] | None = None,
) -> dict[str, Tensors]:
    """The tables of layers' `StepScales`: layer → name within it → tensor as it is stored.

    Every timestep of the calls is calibrated by itself, on its calls alone: the range of all values
    is shrunk to where the rounding error is least (`SEARCH`). The timestep is what the denoiser is
    given, for each sample; samples of other timesteps are told apart.

    Args:
        denoiser: the floating model.
        choices: layers of formats such as `uint4/step`; of those with a width for each step, its
            scale is that of least error in its width.
        calls: recorded calls, of as many timesteps as the structures have steps.
        tensors: layer → what its other structures have calibrated, for those whose quantizers see
            something that depends on it.

    Raises:
        CalibrationError: there are more or fewer timesteps, a layer is not called at one of them,
            or sees NaN or infinity; or samples of other timesteps cannot be told apart.
        UsageError: the denoiser is called without a timestep.
        PlanError, FormatError: as `input_ranges`.
    """
    steps = calls_by_timestep(denoiser, calls)
    for name, choice in choices.items():
        _check_steps(name, choice.steps, steps)
    parts: dict[str, list[list[tuple[Tensor, Tensor]]]] = {name: [] for name in choices}
    for index, timestep in enumerate(track(steps, "Calibrating steps")):
        narrowed = {name: _at_step(choice, index) for name, choice in choices.items()}
        try:
            found = _parameters(denoiser, narrowed, steps[timestep], tensors)
        except CalibrationError as cause:
            raise CalibrationError(f"at timestep {timestep:g}: {cause}") from cause
        for name, each in found.items():
            parts[name].append(each)
    timesteps = as_bits(torch.tensor(list(steps), dtype=torch.float32))
    return {
        name: _tables(denoiser.get_submodule(name), choices[name], timesteps, rows)
        for name, rows in parts.items()
    }


def calls_by_timestep(denoiser: nn.Module, calls: Iterable[Call]) -> dict[float, list[Call]]:
    """Timestep in float32 → its calls, rising.

    Raises:
        CalibrationError: a call is given no timestep, or several, and its samples cannot be told
            apart.
        UsageError: the denoiser is called without a timestep.
    """
    found: dict[float, list[Call]] = defaultdict(list)
    for number, call in enumerate(calls, 1):
        given = TimestepReader.given(denoiser, call.args, call.kwargs)
        if given is None:
            raise CalibrationError(f"call {number} was given no timestep; give one with each call")
        values = given.tolist()
        if len(set(values)) == 1:
            found[values[0]].append(call)
            continue
        if batch_size(call) != len(values):
            raise CalibrationError(
                f"call {number} has {len(values)} timesteps for samples that cannot be told apart; "
                "record calls of one timestep each"
            )
        for value in sorted(set(values)):
            rows = [row for row, each in enumerate(values) if each == value]
            found[value].append(rows_of(call, rows))
    return dict(sorted(found.items()))


def _check_steps(name: str, wanted: int, steps: Mapping[float, object]) -> None:
    if wanted != len(steps):
        shown = ", ".join(f"{step:g}" for step in list(steps)[:4])
        raise CalibrationError(
            f"layer {name}: the plan has input scales of {wanted} steps, but the recorded calls "
            f"are of {len(steps)} timesteps ({shown}{', …' if len(steps) > 4 else ''}); sample "
            f"with {wanted} steps, or make that StepScales({len(steps)})"
        )


def _at_step(choice: Choice, index: int) -> Choice:
    """The choice with the width that its input has at one step, and that at all of them."""
    activation, structures = choice.activation_format, choice.structures
    widths = next((each.bits for each in structures if isinstance(each, StepWidths)), None)
    if widths is None or activation is None:
        return choice
    alike = tuple(
        StepScales(each.steps) if isinstance(each, StepWidths) else each for each in structures
    )
    narrow = replace(activation, width=widths[index]).name
    return replace(choice, activation=narrow, structures=alike)


def _parameters(
    denoiser: nn.Module,
    choices: Mapping[str, Choice],
    calls: Sequence[Call],
    tensors: Mapping[str, Tensors] | None,
) -> dict[str, list[tuple[Tensor, Tensor]]]:
    """Layer → scale and zero point, float32 [1], of each quantizer at one timestep."""
    full = input_ranges(denoiser, choices, calls, momentum=None, tensors=tensors, label=None)
    counted = {name: InputHistogram(ranges) for name, ranges in full.items()}
    watch_inputs(denoiser, choices, counted, calls, tensors)
    found = {}
    for name, histogram in counted.items():
        activation = choices[name].activation_format
        assert activation is not None
        found[name] = [
            clipped_parameters(one, counts, activation)
            for one, counts in zip(histogram.ranges, histogram.counts, strict=True)
        ]
    return found


def clipped_parameters(
    full: InputRange, counts: Tensor, activation: ActivationFormat
) -> tuple[Tensor, Tensor]:
    """Scale and whole zero point of least error, float32 [1].

    Args:
        full: lowest and highest value.
        counts: of values between them, in equal bins.
        activation: the codes.
    """
    if not bool(counts.any()):
        return activation.range_parameters(full.low, full.high, counts.device)
    # Bins that the steps of the narrowest range hold a dozen of: finer ones change nothing.
    wide = min(len(counts), 2 ** (activation.width + 6))
    counts = counts.view(wide, -1).sum(1)
    edges = torch.linspace(full.low, full.high, wide + 1, dtype=torch.float64)
    seen = counts > 0
    values, counts = ((edges[:-1] + edges[1:]) / 2)[seen].float(), counts[seen]
    ratios = torch.tensor(SEARCH.ratios)
    scale, zero_point = activation.parameters(ratios * full.low, ratios * full.high)
    rounded = activation.roundtrip(values, scale.unsqueeze(1), zero_point.unsqueeze(1))
    errors = (rounded - values).abs().double().pow(SEARCH.power) @ counts
    best = int(errors.argmin())
    return scale[best : best + 1], zero_point[best : best + 1]


def _tables(
    layer: nn.Module, choice: Choice, timesteps: Tensor, rows: Sequence[list[tuple[Tensor, Tensor]]]
) -> dict[str, Tensor]:
    """The stored tensors of a layer, from the parameters of its quantizers at every timestep."""
    found: dict[str, Tensor] = {}
    owners = step_places(choice.structures, shape_of(layer))
    for path, quantizer in zip(owners, zip(*rows, strict=True), strict=True):
        scales, zero_points = (torch.cat(each) for each in zip(*quantizer, strict=True))
        found |= {
            dotted(path, TIMESTEP): timesteps.clone(),
            dotted(path, SCALE): as_bits(scales),
            dotted(path, ZERO_POINT): zero_points.to(torch.uint8),
        }
    return found
