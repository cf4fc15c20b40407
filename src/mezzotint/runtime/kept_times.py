"""Measured times that are kept for a machine, in a file that several processes share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from mezzotint._files import read_json, validated, write_json
from mezzotint._locks import one_at_a_time
from mezzotint.errors import MezzotintError, ProfileError
from mezzotint.runtime.cpu.machine import Machine

Clock: TypeAlias = Callable[[], float]

_ROUNDS = 3
"""Timed rounds, of which the least time counts: others may want the processor meanwhile."""

_PATIENCE = 10.0
"""Seconds to wait for another process that measures, once: it may have been stopped."""

_Milliseconds = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]


class _Stored(BaseModel):
    model_config = ConfigDict(extra="forbid")
    machine: dict[str, str | int | list[str]]
    milliseconds: dict[str, dict[str, _Milliseconds]]


class KeptTimes:
    """Milliseconds of every way to compute each class of work that was met on a machine.

    They are read from a file once, and added to it as they are measured. Where it cannot be read or
    written, this process measures for itself. What this process knows does not change any more.
    """

    def __init__(self, file: Path, machine: Machine) -> None:
        self._file = file
        self._machine = machine
        self._lock = threading.Lock()
        self._patience = _PATIENCE
        self._known: dict[str, dict[str, float]] | None = None
        self._settled: dict[tuple[str, frozenset[str]], dict[str, float]] = {}

    def known(self) -> dict[str, dict[str, float]]:
        """Class of work → way → milliseconds, all that are known of all ways."""
        if self._known is None:
            self._known = self._read()
        return self._known

    def of(
        self, work: str, names: Collection[str], measure: Callable[[], Mapping[str, float]]
    ) -> Mapping[str, float]:
        """Milliseconds of the named ways to compute a class of work.

        Args:
            work: name of the class.
            names: of the ways.
            measure: measures the seconds of them all, where they are not known. If it leaves one
                out, other processes are to measure the class again.
        """
        key = work, frozenset(names)
        with self._lock:
            found = self._settled.get(key)
            if found is None:
                found = self._settled[key] = self._settle(work, key[1], measure)
            return found

    def _settle(
        self, work: str, names: frozenset[str], measure: Callable[[], Mapping[str, float]]
    ) -> dict[str, float]:
        found = self.known().get(work, {})
        if not names <= found.keys():
            with one_at_a_time(self._file, self._patience) as alone:
                if not alone:  # whoever has the lock may have been stopped: nobody waits twice
                    self._patience = 0
                # Another process may have measured it meanwhile: all are to choose alike.
                stored = self._read()
                found = stored.get(work, {})
                if not names <= found.keys():
                    found = {name: 1e3 * seconds for name, seconds in measure().items()}
                    if names <= found.keys():
                        self._write(self.known() | stored | {work: found})
            self._known = self.known() | stored
            if names <= found.keys():
                self._known[work] = found
        return {name: found[name] for name in names & found.keys()}

    def _read(self) -> dict[str, dict[str, float]]:
        with suppress(MezzotintError, OSError):
            value = read_json(self._file, ProfileError)
            stored = validated(_Stored, value, self._file, ProfileError)
            if stored.machine == self._machine.to_dict():
                return stored.milliseconds
        return {}

    def _write(self, milliseconds: Mapping[str, Mapping[str, float]]) -> None:
        with suppress(MezzotintError, OSError):
            machine = self._machine.to_dict()
            write_json(self._file, {"machine": machine, "milliseconds": milliseconds})


def least_seconds(
    calls: Mapping[str, Callable[[], object]], clock: Clock = time.perf_counter
) -> dict[str, float]:
    """The least time of each call over interleaved rounds, after one that is not timed."""
    least = dict.fromkeys(calls, float("inf"))
    for round_ in range(_ROUNDS + 1):
        for name, call in calls.items():
            start = clock()
            call()
            if round_:
                least[name] = min(least[name], clock() - start)
    return least
