"""What one choice costs when only that layer is changed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mezzotint.errors import CalibrationError
from mezzotint.models import Call
from mezzotint.plan import Choice
from mezzotint.runtime import Calibration
from mezzotint.sensitivity.journal import Journal
from mezzotint.sensitivity.replay import CACHE_BYTES, Replay
from mezzotint.sensitivity.schedule import measure_missing
from mezzotint.sensitivity.units import Unit, changed_layer


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

    def figures(self) -> dict[str, float]:
        """For files and tables."""
        return {"noise": self.noise, "sqnr_db": self.sqnr_db}


class Measured(Protocol):
    """What was found of one choice of one layer, in whatever metric."""

    def figures(self) -> dict[str, float]:
        """Name → value, JSON numbers."""


Measurements = Mapping[str, Mapping[Choice, Measured]]


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


@torch.no_grad()
def measure_unit(
    denoiser: nn.Module,
    unit: Unit,
    calls: Sequence[Call],
    calibration: Calibration,
    run: Callable[[Call], Tensor] | None = None,
) -> Score:
    """Run the recorded calls with one layer changed: by `run`, or else in full.

    Raises:
        CalibrationError: no calls, or an output holds NaN; the layer is named.
    """
    if not calls:
        raise CalibrationError("no denoiser calls were recorded; give at least one prompt")
    total, samples = 0.0, 0
    with changed_layer(denoiser, unit, calibration):
        for call in calls:
            output = call.run(denoiser) if run is None else run(call)
            noise = relative_noise(reference(call), output)
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
    calibration: Calibration,
    journal: Journal,
    *,
    cache_bytes: int | None = CACHE_BYTES,
) -> dict[str, dict[Choice, Score]]:
    """Every unit's score, taken from the journal where it is there already.

    Units are measured in the order of execution, so that what runs before a layer is computed
    once for all its units; scores are those of full runs, bit for bit. With units that change an
    input only, call this once for them and once for the others: both kinds go by their choice.

    Args:
        denoiser: floating; restored after every unit.
        units: in any order, which the result keeps.
        calls: recorded, with their outputs.
        calibration: the calibrated ranges and constant outputs.
        journal: where finished units are kept.
        cache_bytes: memory for what runs before a layer, see `Replay`; 0 runs every call in full.
    """
    units = tuple(units)
    replay = Replay(denoiser, calls, cache_bytes=cache_bytes)

    def score(unit: Unit) -> dict[str, Any]:
        return asdict(measure_unit(denoiser, unit, calls, calibration, replay.run))

    measure_missing(units, journal, replay, score)
    scores: dict[str, dict[Choice, Score]] = {}
    for unit in units:
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
