"""Wall-clock time of things that are to be compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from mezzotint.errors import UsageError


@dataclass(frozen=True)
class Latency:
    """Seconds of one call over the repeats.

    Attributes:
        median: seconds.
        minimum: seconds.
        maximum: seconds.
        ratio: median over rounds of this call's time by the first one's; below 1 is faster.
    """

    median: float
    minimum: float
    maximum: float
    ratio: float


def interleaved_medians(
    functions: Mapping[str, Callable[[], object]],
    *,
    repeats: int = 7,
    warmup: int = 2,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Latency]:
    """Time each function `repeats` times, in the order A, B, A, B.

    A machine that slows down, or is busy for a while, then disturbs all alike; the ratio compares
    only calls of the same round. An accelerator is waited for before the clock is read.

    Args:
        functions: by name; the first is what the others are compared with.
        repeats: timed rounds.
        warmup: rounds before that, not timed.
        clock: returns seconds.

    Raises:
        UsageError: no functions, or a count out of range.
    """
    if not functions:
        raise UsageError("functions: none given; at least one is needed")
    if repeats < 1 or warmup < 0:
        raise UsageError(f"repeats: {repeats}, warmup: {warmup}; use at least 1 and 0")
    rounds = [
        [_seconds(function, clock) for function in functions.values()]
        for _ in range(warmup + repeats)
    ]
    seconds = np.array(rounds[warmup:])
    ratios = seconds / seconds[:, :1]
    return {
        name: Latency(
            median=float(np.median(seconds[:, column])),
            minimum=float(seconds[:, column].min()),
            maximum=float(seconds[:, column].max()),
            ratio=float(np.median(ratios[:, column])),
        )
        for column, name in enumerate(functions)
    }


def _seconds(function: Callable[[], object], clock: Callable[[], float]) -> float:
    wait_for_accelerator()
    start = clock()
    function()
    wait_for_accelerator()
    return clock() - start


def wait_for_accelerator() -> None:
    """Wait until all that was launched is computed; a processor has nothing to wait for."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
