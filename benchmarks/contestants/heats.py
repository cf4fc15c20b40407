"""Heats: as many contestants as fit into memory, loaded together and timed in turns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .client import Contender, FailedError, OutOfMemoryError, has_room
from .environments import Environment
from .field import Entry
from .setting import Setting
from .timing import speedup, summary

Row = dict[str, Any]
WARMUP = 2
"""Calls before the timed ones; the first also yields the output that is checked."""


LARGEST = 6
"""Contestants of a heat, so that turns come round soon and a kill costs little."""


@dataclass
class Running:
    """A contestant that is loaded and waits."""

    entry: Entry
    contender: Contender
    figures: Row
    seconds: list[float] = field(default_factory=list)
    pace: float = 0.0


@dataclass
class Queue:
    """Who is still to come; those that ran out of memory come again, with nobody beside them."""

    pending: list[Entry]
    alone: set[str] = field(default_factory=set)

    def again(self, entry: Entry) -> bool:
        """Put a contestant back; False where it has been alone already."""
        if entry.name in self.alone:
            return False
        self.alone.add(entry.name)
        self.pending.append(entry)
        return True


@dataclass(frozen=True)
class Meeting:
    """Contestants of one denoiser, timed against baselines that stay loaded.

    Attributes:
        batches: batch sizes, each timed on its own.
        repeats: timed rounds.
        slowest: how many times a baseline's seconds a contestant's call may take.
    """

    setting: Setting
    batches: tuple[int, ...]
    repeats: int
    slowest: float

    def rows(self, entries: Sequence[Entry], baselines: Sequence[Entry]) -> Iterator[Row]:
        """A row per contestant and batch, heat by heat; with the reason where there is no time."""
        queue = Queue([])
        # Before the baselines take their memory.
        for entry in entries:
            try:
                self._prepare(entry)
                queue.pending.append(entry)
            except FailedError as cause:
                yield from self._refused(entry, cause)
        self._reference()
        standing = self._standing(queue.pending, baselines)
        try:
            while queue.pending:
                heat: list[Running] = []
                try:
                    yield from self._fill(heat, queue, standing)
                    yield from self._timed(heat, queue, standing)
                finally:
                    _close(one for one in heat if one not in standing)
        finally:
            _close(standing)

    def _reference(self) -> None:
        """Outputs in float32, for the error of all others."""
        running = self._start(REFERENCE)
        with running.contender:
            for batch in self.batches:
                self.setting.output(REFERENCE, batch).unlink(missing_ok=True)
                self._output(running, batch)

    def _standing(self, entries: Sequence[Entry], baselines: Sequence[Entry]) -> list[Running]:
        """The baselines that leave room for the largest contestant, the smallest first."""
        expected = self.setting.expected_bytes
        largest = max((expected(e) for e in entries if e not in baselines), default=0)
        found: list[Running] = []
        for entry in sorted(baselines, key=expected):
            if has_room(expected(entry) + largest):
                with suppress(FailedError):  # as a contestant it gets a row that says why
                    found.append(self._start(entry))
        return found

    def _fill(self, heat: list[Running], queue: Queue, standing: list[Running]) -> Iterator[Row]:
        """Load contestants while memory lasts."""
        while queue.pending and len(heat) < LARGEST:
            entry = queue.pending[0]
            solitary = entry.name in queue.alone
            if heat and (solitary or not has_room(self.setting.expected_bytes(entry))):
                return
            queue.pending.pop(0)
            present = next((one for one in standing if one.entry == entry), None)
            try:
                heat.append(present or self._start(entry))
            except FailedError as cause:
                if heat and isinstance(cause, OutOfMemoryError) and queue.again(entry):
                    return
                yield from self._refused(entry, cause)
            if solitary:
                return

    def _timed(self, heat: list[Running], queue: Queue, standing: list[Running]) -> Iterator[Row]:
        racing = standing + [one for one in heat if one not in standing]
        for batch in self.batches:
            failures = self._race(racing, batch, standing)
            baselines = [one for one in standing if one.entry.name not in failures]
            for one in (one for one in racing if one in heat):
                cause = failures.get(one.entry.name)
                if cause is None:
                    yield self._row(one, batch, baselines)
                elif not (isinstance(cause, OutOfMemoryError) and queue.again(one.entry)):
                    yield self._head(one.entry, batch) | one.figures | {"reason": str(cause)}
            racing = [one for one in racing if one.contender.process.poll() is None]
        standing[:] = [one for one in standing if one in racing]

    def _race(
        self, racing: Sequence[Running], batch: int, standing: Sequence[Running]
    ) -> dict[str, FailedError]:
        """Warm up, time the rounds and ask for the peaks, in turns; who failed, and why."""
        failures: dict[str, FailedError] = {}
        for one in racing:
            one.seconds = []
        for turn in range(WARMUP + self.repeats + 1):
            for one in racing:
                if one.entry.name not in failures:
                    try:
                        self._turn(one, batch, turn)
                        if turn == WARMUP - 1:
                            self._check_pace(one, standing)
                    except FailedError as cause:
                        failures[one.entry.name] = cause
        return failures

    def _turn(self, one: Running, batch: int, turn: int) -> None:
        if turn == 0:
            one.figures |= self._output(one, batch)
        elif turn == WARMUP + self.repeats:
            one.figures |= one.contender.ask("peak", self.setting.timeout)
        else:
            answer = one.contender.ask("run", self.setting.timeout, batch=batch)
            one.pace = answer["seconds"]
            if turn >= WARMUP:
                one.seconds.append(one.pace)

    def _check_pace(self, one: Running, standing: Sequence[Running]) -> None:
        """Give up on what would take hours: its factor is said in its row."""
        for baseline in [other for other in standing if other.pace][:1]:
            factor = one.pace / baseline.pace
            if factor > self.slowest:
                raise FailedError(
                    f"not timed further: a call took {one.pace:.1f} s, {factor:.0f} times that of "
                    f"{baseline.entry.name}"
                )

    def _output(self, one: Running, batch: int) -> Row:
        path = self.setting.output(one.entry, batch)
        answer = one.contender.ask("output", self.setting.timeout, batch=batch, path=str(path))
        reference = np.load(self.setting.output(REFERENCE, batch)).astype(np.float64)
        output = np.load(path)
        if output.shape != reference.shape:
            raise FailedError(f"returns shape {output.shape} where {reference.shape} is expected")
        error = np.linalg.norm(output - reference) / np.linalg.norm(reference)
        if not np.isfinite(error):
            raise FailedError("returns NaN or infinite values")
        return answer | {"relative_error": float(error)}

    def _prepare(self, entry: Entry) -> None:
        print(f"{self.setting.denoiser}: preparing {entry.name}", flush=True)
        problem = Environment(entry.environment, self.setting.cache).make()
        if problem:
            raise FailedError(problem)
        self.setting.prepare(entry)

    def _refused(self, entry: Entry, cause: FailedError) -> Iterator[Row]:
        for batch in self.batches:
            yield self._head(entry, batch) | {"reason": str(cause)}

    def _start(self, entry: Entry) -> Running:
        setting = self.setting
        print(f"{setting.denoiser}: loading {entry.name}", flush=True)
        contender = setting.contender(entry)
        try:
            request = setting.request(entry).to_dict()
            figures = contender.ask(
                "load", setting.timeout, request=request, denoiser=setting.denoiser
            )
        except BaseException:
            contender.close()
            raise
        return Running(entry, contender, figures)

    def _row(self, one: Running, batch: int, standing: list[Running]) -> Row:
        return (
            self._head(one.entry, batch)
            | one.figures
            | {
                "seconds": one.seconds,
                "time": summary(one.seconds),
                "speedup": {s.entry.name: speedup(s.seconds, one.seconds) for s in standing},
            }
        )

    def _head(self, entry: Entry, batch: int) -> Row:
        return {
            "denoiser": self.setting.denoiser,
            "batch": batch,
            "contestant": entry.name,
            "bits": entry.bits,
            "dtype": entry.dtype or self.setting.dtype,
            "repeats": self.repeats,
        }


REFERENCE = Entry("torch-fp32", "torch_floating", "", "fp32", {}, "float32")


def _close(running: Iterable[Running]) -> None:
    for one in running:
        one.contender.close()
