"""Measured times of the ways of computing attention, by class of shapes; kept for this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import torch

from mezzotint._cache import CACHE_VARIABLE, cache_folder
from mezzotint.runtime.attention.call import AttentionCall
from mezzotint.runtime.attention.shapes import ShapeClass, sample_of
from mezzotint.runtime.attention.ways import TORCH, WAYS, candidates
from mezzotint.runtime.cpu.machine import Machine
from mezzotint.runtime.kept_times import Clock, KeptTimes, least_seconds

_MARGIN = 0.9
"""Another way is taken where it takes less than this part of torch's time."""

_REMEMBERED = 256
"""Shapes that are remembered with their way; those of a denoiser are a few."""


class Times:
    """The choice among the ways by their times for each class of shapes that was met."""

    def __init__(self, file: Path, machine: Machine, clock: Clock = time.perf_counter) -> None:
        self._kept = KeptTimes(file, machine)
        self._threads = machine.threads
        self._clock = clock
        self._fastest: dict[object, str] = {}

    @classmethod
    def here(cls) -> Times:
        """The times of this machine, with as many threads as torch computes with now."""
        return _times(torch.get_num_threads(), os.environ.get(CACHE_VARIABLE))

    def way(self, call: AttentionCall) -> str:
        """Name of the fastest way, measured where that is not known yet."""
        shapes = (
            call.query.shape,
            call.value.shape,
            call.query.dtype,
            call.mask is None,
            call.causal,
        )
        known = self._fastest.get(shapes)
        if known is None:
            names = candidates(call)
            known = fastest(self._of(call, names)) if names[1:] else TORCH
            if len(self._fastest) >= _REMEMBERED:
                self._fastest.clear()
            self._fastest[shapes] = known
        return known

    def milliseconds(self) -> dict[str, dict[str, float]]:
        """Class of shapes → way → milliseconds of a sample, all that are known."""
        return self._kept.known()

    def _of(self, call: AttentionCall, names: tuple[str, ...]) -> Mapping[str, float]:
        def measure() -> dict[str, float]:
            sample = sample_of(call, self._threads)
            return least_seconds({name: partial(WAYS[name], sample) for name in names}, self._clock)

        return self._kept.of(str(ShapeClass.of(call)), names, measure)


@cache
def _times(threads: int, folder: str | None) -> Times:
    """One object for each setting that is looked up at every call."""
    machine = replace(Machine.here(), threads=threads)
    return Times(cache_folder() / "attention" / f"{machine.key}.json", machine)


def fastest(milliseconds: Mapping[str, float]) -> str:
    """The way that takes the least time; torch's own unless another is clearly faster."""
    best = min(milliseconds, key=milliseconds.__getitem__)
    return best if milliseconds[best] < _MARGIN * milliseconds[TORCH] else TORCH
