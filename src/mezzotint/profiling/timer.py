"""Repetitions of timings, such that medians are steady and nobody waits for hours."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from mezzotint.errors import UsageError
from mezzotint.profiling.medians import Latency, interleaved_medians

_CALLS_ON_ACCELERATOR = 10
"""Calls per reading of the clock: as in a denoiser, one is launched while another computes."""


@dataclass(frozen=True)
class Timer:
    """Interleaved medians, of more rounds for what is over soon.

    Attributes:
        repeats: timed rounds at least.
        most: timed rounds at most.
        seconds: rounds are added until the first function has had this much time.
        clock: returns seconds.
    """

    repeats: int = 7
    most: int = 50
    seconds: float = 0.02
    clock: Callable[[], float] = time.perf_counter

    def __post_init__(self) -> None:
        if self.repeats < 1 or self.most < self.repeats:
            raise UsageError(
                f"repeats: {self.repeats}, most: {self.most}; use 1 or more, and no fewer at most"
            )

    def __call__(
        self, functions: Mapping[str, Callable[[], object]], device: torch.device
    ) -> dict[str, Latency]:
        """Seconds of one call of each; the first is what the others are compared with."""
        calls = 1 if device.type == "cpu" else _CALLS_ON_ACCELERATOR
        timed = {name: _repeated(function, calls) for name, function in functions.items()}
        first = next(iter(timed))
        once = interleaved_medians({first: timed[first]}, repeats=1, warmup=1, clock=self.clock)
        found = interleaved_medians(
            timed, repeats=self._rounds(once[first].median), warmup=1, clock=self.clock
        )
        return {
            name: Latency(one.median / calls, one.minimum / calls, one.maximum / calls, one.ratio)
            for name, one in found.items()
        }

    def _rounds(self, seconds: float) -> int:
        if seconds * self.most <= self.seconds:
            return self.most
        return min(max(self.repeats, math.ceil(self.seconds / seconds)), self.most)


def _repeated(function: Callable[[], object], calls: int) -> Callable[[], object]:
    def run() -> None:
        for _ in range(calls):
            function()

    return function if calls == 1 else run
