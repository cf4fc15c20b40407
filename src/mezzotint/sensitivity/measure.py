"""What one choice costs when only that layer is changed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mezzotint.errors import CalibrationError, FormatError, PlanError
from mezzotint.formats import ActivationFormat
from mezzotint.models import Call
from mezzotint.plan import Choice
from mezzotint.runtime import TOKEN_DIMS, InputRange, Packing, check_input_range
from mezzotint.sensitivity.journal import Journal


@dataclass(frozen=True)
class Unit:
    """One measurement: this layer takes this choice, all others stay floating."""

    layer: str
    choice: Choice

    @property
    def name(self) -> str:
        """Key in the journal."""
        return f"{self.layer} | {self.choice.weight} | {self.choice.activation}"


@dataclass(frozen=True)
class Score:
    """Distance of the denoiser's output from the float one, over the recorded calls.

    Attributes:
        noise: mean over calls and samples of Σ(y - ŷ)² / Σy². Near enough additive over layers,
            which is what an allocation needs; decibels are not.
        sqnr_db: -10 log10(noise).
    """

    noise: float

    @property
    def sqnr_db(self) -> float:
        """Signal to quantization noise, in decibels."""
        return math.inf if self.noise == 0 else -10 * math.log10(self.noise)


Measurements = Mapping[str, Mapping[Choice, Score]]


def reference(call: Call) -> Tensor:
    """The float denoiser's output, recorded with the call.

    Raises:
        CalibrationError: the call was never run.
    """
    if call.output is None:
        raise CalibrationError("a denoiser call has no recorded output; use record_calls")
    return call.output


def relative_noise(reference: Tensor, output: Tensor) -> Tensor:
    """Σ(y - ŷ)² / Σy² per sample, float32 [n]."""
    reference, output = reference.float().flatten(1), output.float().flatten(1)
    power = reference.square().sum(1).clamp(min=torch.finfo(torch.float32).tiny)
    return (reference - output).square().sum(1) / power


@contextmanager
def changed_layer(denoiser: nn.Module, unit: Unit, packing: Packing) -> Iterator[None]:
    """The denoiser with one layer's weight and input rounded to `unit.choice`, undone at the end.

    Raises:
        FormatError: the layer's weight holds NaN; the layer is named.
    """
    layer = denoiser.get_submodule(unit.layer)
    if not isinstance(layer, nn.Linear | nn.Conv2d):
        raise PlanError(f"layer {unit.layer} is a {type(layer).__name__}, not a Linear or Conv2d")
    weight = layer.weight.data
    weight_format, activation = unit.choice.weight_format, unit.choice.activation_format
    hook = None
    try:
        if weight_format is not None:
            layer.weight.data = weight_format.roundtrip(weight, packing.search).to(weight.dtype)
        if activation is not None:
            rounding = _rounding_hook(activation, packing.input_ranges.get(unit.layer))
            hook = layer.register_forward_pre_hook(rounding)
        yield
    except FormatError as cause:
        raise FormatError(f"layer {unit.layer}: {cause}") from cause
    finally:
        layer.weight.data = weight
        if hook is not None:
            hook.remove()


def _rounding_hook(activation: ActivationFormat, seen: InputRange | None) -> Callable[..., Any]:
    """What a packed layer does to its input, for a float one."""
    check_input_range(activation, seen)

    def round_input(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x, *rest = inputs
        if seen is not None and activation.static:
            scale, zero_point = activation.range_parameters(seen.low, seen.high, x.device)
        else:
            dims = TOKEN_DIMS["linear" if isinstance(layer, nn.Linear) else "conv2d"]
            scale, zero_point = activation.dynamic_parameters(x, dims)
        return (activation.roundtrip(x, scale, zero_point), *rest)

    return round_input


@torch.no_grad()
def measure_unit(denoiser: nn.Module, unit: Unit, calls: Sequence[Call], packing: Packing) -> Score:
    """Run the recorded calls with one layer changed.

    Raises:
        CalibrationError: no calls, or an output holds NaN; the layer is named.
    """
    if not calls:
        raise CalibrationError("no denoiser calls were recorded; give at least one prompt")
    total, samples = 0.0, 0
    with changed_layer(denoiser, unit, packing):
        for call in calls:
            noise = relative_noise(reference(call), call.run(denoiser))
            total += float(noise.double().sum())
            samples += len(noise)
    if not math.isfinite(total):
        raise CalibrationError(
            f"layer {unit.layer} at {unit.choice}: the denoiser's output holds NaN or infinity"
        )
    return Score(total / samples)


def measure(
    denoiser: nn.Module,
    units: Iterable[Unit],
    calls: Sequence[Call],
    packing: Packing,
    journal: Journal,
) -> dict[str, dict[Choice, Score]]:
    """Every unit's score, taken from the journal where it is there already."""
    scores: dict[str, dict[Choice, Score]] = {}
    for unit in units:
        if unit.name not in journal:
            journal.add(unit.name, asdict(measure_unit(denoiser, unit, calls, packing)))
        scores.setdefault(unit.layer, {})[unit.choice] = Score(**journal[unit.name])
    return scores


def fingerprint(denoiser: nn.Module, calls: Sequence[Call]) -> str:
    """A hash of the denoiser's weights and of the recorded outputs: what scores depend on."""
    digest = hashlib.sha256()
    for name, tensor in denoiser.state_dict().items():
        digest.update(name.encode())
        digest.update(_bytes(tensor))
    for call in calls:
        digest.update(_bytes(reference(call)))
    return digest.hexdigest()[:16]


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def check_weights(denoiser: nn.Module, names: Sequence[str]) -> None:
    """Raise CalibrationError, naming the layer, where a weight holds NaN or infinity."""
    for name in names:
        weight = denoiser.get_submodule(name).get_parameter("weight")
        if not bool(torch.isfinite(weight).all()):
            raise CalibrationError(
                f"layer {name}: the weight holds NaN or infinite values; the model is damaged"
            )
