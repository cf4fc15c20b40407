"""Measured times of the ways of computing attention, by class of shapes; kept for this machine."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Annotated, TypeAlias

import torch
from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from mezzotint._cache import CACHE_VARIABLE, cache_folder
from mezzotint._files import read_json, validated, write_json
from mezzotint.errors import MezzotintError, ProfileError
from mezzotint.runtime.attention.call import AttentionCall
from mezzotint.runtime.attention.shapes import ShapeClass, sample_of
from mezzotint.runtime.attention.ways import TORCH, WAYS, candidates
from mezzotint.runtime.cpu.machine import Machine

Clock: TypeAlias = Callable[[], float]

_MARGIN = 0.9
"""Another way is taken where it takes less than this part of torch's time."""

_ROUNDS = 3
"""Timed rounds, of which the least time counts: others may want the processor meanwhile."""

_Milliseconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Stored(BaseModel):
    model_config = ConfigDict(extra="forbid")
    machine: dict[str, str | int | list[str]]
    milliseconds: dict[str, dict[str, _Milliseconds]]


class Times:
    """Milliseconds of every way for each class of shapes that was met.

    They are read from a file once, and added to it as they are measured. Where it cannot be read or
    written, this process measures for itself.
    """

    def __init__(self, file: Path, machine: Machine, clock: Clock = time.perf_counter) -> None:
        self._file = file
        self._machine = machine
        self._clock = clock
        self._lock = threading.Lock()
        self._found: dict[str, dict[str, float]] | None = None
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
            with self._lock:
                found = self._of(str(ShapeClass.of(call)), names, call) if names[1:] else {TORCH: 0}
            known = self._fastest[shapes] = fastest(found)
        return known

    def milliseconds(self) -> dict[str, dict[str, float]]:
        """Class of shapes → way → milliseconds of a sample, all that are known."""
        if self._found is None:
            self._found = self._read()
        return self._found

    def _of(self, shapes: str, names: tuple[str, ...], call: AttentionCall) -> Mapping[str, float]:
        known = self.milliseconds().get(shapes, {})
        if not set(names) <= set(known):
            with self._alone():
                # Another process may have measured it meanwhile: all are to choose alike.
                self._found = self.milliseconds() | self._read()
                known = self._found.get(shapes, {})
                if not set(names) <= set(known):
                    known = self._found[shapes] = self._measured(names, call)
                    self._write()
        return {name: known[name] for name in names}

    def _measured(self, names: tuple[str, ...], call: AttentionCall) -> dict[str, float]:
        ways = {name: WAYS[name] for name in names}
        seconds = least_seconds(ways, sample_of(call, self._machine.threads), self._clock)
        return {name: 1e3 * each for name, each in seconds.items()}

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes from measuring, as far as there can be a file to lock."""
        lock = FileLock(self._file.with_name(f"{self._file.name}.lock"))
        with suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _read(self) -> dict[str, dict[str, float]]:
        with suppress(MezzotintError, OSError):
            stored = validated(
                _Stored, read_json(self._file, ProfileError), self._file, ProfileError
            )
            return stored.milliseconds
        return {}

    def _write(self) -> None:
        with suppress(MezzotintError, OSError):
            machine = self._machine.to_dict()
            write_json(self._file, {"machine": machine, "milliseconds": self._found})


@cache
def _times(threads: int, folder: str | None) -> Times:
    """One object for each setting that is looked up at every call."""
    machine = replace(Machine.here(), threads=threads)
    return Times(cache_folder() / "attention" / f"{machine.key}.json", machine)


def fastest(milliseconds: Mapping[str, float]) -> str:
    """The way that takes the least time; torch's own unless another is clearly faster."""
    best = min(milliseconds, key=milliseconds.__getitem__)
    return best if milliseconds[best] < _MARGIN * milliseconds[TORCH] else TORCH


def least_seconds(
    ways: Mapping[str, Callable[[AttentionCall], Tensor]], call: AttentionCall, clock: Clock
) -> dict[str, float]:
    """The least time of each way over interleaved rounds, after one that is not timed."""
    least = dict.fromkeys(ways, float("inf"))
    for round_ in range(_ROUNDS + 1):
        for name, way in ways.items():
            start = clock()
            way(call)
            if round_:
                least[name] = min(least[name], clock() - start)
    return least
