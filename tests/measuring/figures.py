"""Measurements of small denoisers, in short."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from mezzotint._journal import Journal
from mezzotint.measuring import (
    CACHE_BYTES,
    Change,
    Figures,
    InProcess,
    LayerChange,
    Noise,
    Original,
    Task,
    measure,
    measure_layers,
)
from mezzotint.models import Call
from mezzotint.plan import Choice
from mezzotint.runtime import Calibration

CALIBRATION = Calibration()


def noise(
    denoiser: nn.Module,
    change: Change,
    calls: Sequence[Call],
    calibration: Calibration = CALIBRATION,
) -> float:
    """Noise of one change, measured in full runs."""
    executor = InProcess(Original(denoiser, tuple(calls), calibration), cache_bytes=0)
    with Journal(None, {}) as journal:
        (figures,) = measure([Task(change, Noise())], executor, journal)
    return figures["noise"]


def noises(
    denoiser: nn.Module,
    changes: Sequence[LayerChange],
    calls: Sequence[Call],
    journal: Journal,
    cache_bytes: int | None = CACHE_BYTES,
) -> Mapping[str, Mapping[Choice, Figures]]:
    """Noise of many changes, layer by layer."""
    executor = InProcess(Original(denoiser, tuple(calls), CALIBRATION), cache_bytes=cache_bytes)
    return measure_layers(changes, Noise(), executor, journal)
