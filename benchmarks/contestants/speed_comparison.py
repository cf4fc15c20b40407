"""Comparison of speeds: as many contestants as fit into memory, loaded and timed in turns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .environments import Environment
from .speed_contestants import Contestant
from .timed_denoiser import TimedDenoiser
from .timing import speedup, summary
from .worker_process import FailedError, OutOfMemoryError, WorkerProcess, has_room

Row = dict[str, Any]
WARMUP = 2
"""Calls before the timed ones; the first also yields the output that is checked."""


LARGEST = 6
"""Contestants that are loaded together, so that turns come round soon and a kill costs little."""


@dataclass
class TimedContestant:
    """A contestant that is loaded and waits."""

    contestant: Contestant
    worker: WorkerProcess
    figures: Row
    seconds: list[float] = field(default_factory=list)
    pace: float = 0.0


@dataclass
class Queue:
    """Contestants to come; those that ran out of memory come again, with nobody beside them."""

    pending: list[Contestant]
    alone: set[str] = field(default_factory=set)

    def again(self, contestant: Contestant) -> bool:
        """Put a contestant back; False where it has been alone already."""
        if contestant.name in self.alone:
            return False
        self.alone.add(contestant.name)
        self.pending.append(contestant)
        return True


@dataclass(frozen=True)
class SpeedComparison:
    """Contestants of one denoiser, timed against baselines that stay loaded.

    Attributes:
        batches: batch sizes, each timed on its own.
        repeats: timed rounds.
        slowest: how many times a baseline's seconds a contestant's call may take.
    """

    target: TimedDenoiser
    batches: tuple[int, ...]
    repeats: int
    slowest: float

    def rows(
        self, contestants: Sequence[Contestant], baselines: Sequence[Contestant]
    ) -> Iterator[Row]:
        """A row per contestant and batch, with the reason where there is no time."""
        queue = Queue([])
        # Before the baselines take their memory.
        for contestant in contestants:
            try:
                self._prepare(contestant)
                queue.pending.append(contestant)
            except FailedError as cause:
                yield from self._refused(contestant, cause)
        self._reference()
        resident = self._resident(queue.pending, baselines)
        try:
            while queue.pending:
                loaded: list[TimedContestant] = []
                try:
                    yield from self._fill(loaded, queue, resident)
                    yield from self._timed(loaded, queue, resident)
                finally:
                    _close(one for one in loaded if one not in resident)
        finally:
            _close(resident)

    def _reference(self) -> None:
        """Outputs in float32, for the error of all others."""
        running = self._start(REFERENCE)
        with running.worker:
            for batch in self.batches:
                self.target.output(REFERENCE, batch).unlink(missing_ok=True)
                self._output(running, batch)

    def _resident(
        self, contestants: Sequence[Contestant], baselines: Sequence[Contestant]
    ) -> list[TimedContestant]:
        """The baselines that leave room for the largest contestant, the smallest first."""
        expected = self.target.expected_bytes
        largest = max((expected(e) for e in contestants if e not in baselines), default=0)
        found: list[TimedContestant] = []
        for contestant in sorted(baselines, key=expected):
            if has_room(expected(contestant) + largest):
                with suppress(FailedError):  # as a contestant it gets a row that says why
                    found.append(self._start(contestant))
        return found

    def _fill(
        self, loaded: list[TimedContestant], queue: Queue, resident: list[TimedContestant]
    ) -> Iterator[Row]:
        """Load contestants while memory lasts."""
        while queue.pending and len(loaded) < LARGEST:
            contestant = queue.pending[0]
            solitary = contestant.name in queue.alone
            if loaded and (solitary or not has_room(self.target.expected_bytes(contestant))):
                return
            queue.pending.pop(0)
            present = next((one for one in resident if one.contestant == contestant), None)
            try:
                loaded.append(present or self._start(contestant))
            except FailedError as cause:
                if loaded and isinstance(cause, OutOfMemoryError) and queue.again(contestant):
                    return
                yield from self._refused(contestant, cause)
            if solitary:
                return

    def _timed(
        self, loaded: list[TimedContestant], queue: Queue, resident: list[TimedContestant]
    ) -> Iterator[Row]:
        timed = resident + [one for one in loaded if one not in resident]
        for batch in self.batches:
            failures = self._time_rounds(timed, batch, resident)
            baselines = [one for one in resident if one.contestant.name not in failures]
            for one in (one for one in timed if one in loaded):
                cause = failures.get(one.contestant.name)
                if cause is None:
                    yield self._row(one, batch, baselines)
                elif not (isinstance(cause, OutOfMemoryError) and queue.again(one.contestant)):
                    yield self._head(one.contestant, batch) | one.figures | {"reason": str(cause)}
            timed = [one for one in timed if one.worker.process.poll() is None]
        resident[:] = [one for one in resident if one in timed]

    def _time_rounds(
        self, timed: Sequence[TimedContestant], batch: int, resident: Sequence[TimedContestant]
    ) -> dict[str, FailedError]:
        """Warm up, time the rounds and ask for the peaks, in turns. Failures by contestant."""
        failures: dict[str, FailedError] = {}
        for one in timed:
            one.seconds = []
        for turn in range(WARMUP + self.repeats + 1):
            for one in timed:
                if one.contestant.name not in failures:
                    try:
                        self._turn(one, batch, turn)
                        if turn == WARMUP - 1:
                            self._check_pace(one, resident)
                    except FailedError as cause:
                        failures[one.contestant.name] = cause
        return failures

    def _turn(self, one: TimedContestant, batch: int, turn: int) -> None:
        if turn == 0:
            one.figures |= self._output(one, batch)
        elif turn == WARMUP + self.repeats:
            one.figures |= one.worker.ask("peak", self.target.timeout)
        else:
            answer = one.worker.ask("run", self.target.timeout, batch=batch)
            one.pace = answer["seconds"]
            if turn >= WARMUP:
                one.seconds.append(one.pace)

    def _check_pace(self, one: TimedContestant, resident: Sequence[TimedContestant]) -> None:
        """Give up on what would take hours: its factor is said in its row."""
        for baseline in [other for other in resident if other.pace][:1]:
            factor = one.pace / baseline.pace
            if factor > self.slowest:
                raise FailedError(
                    f"not timed further: a call took {one.pace:.1f} s, {factor:.0f} times that of "
                    f"{baseline.contestant.name}"
                )

    def _output(self, one: TimedContestant, batch: int) -> Row:
        path = self.target.output(one.contestant, batch)
        answer = one.worker.ask("output", self.target.timeout, batch=batch, path=str(path))
        reference = np.load(self.target.output(REFERENCE, batch)).astype(np.float64)
        output = np.load(path)
        if output.shape != reference.shape:
            raise FailedError(f"returns shape {output.shape} where {reference.shape} is expected")
        error = np.linalg.norm(output - reference) / np.linalg.norm(reference)
        if not np.isfinite(error):
            raise FailedError("returns NaN or infinite values")
        return answer | {"relative_error": float(error)}

    def _prepare(self, contestant: Contestant) -> None:
        print(f"{self.target.denoiser}: preparing {contestant.name}", flush=True)
        problem = Environment(contestant.environment, self.target.cache).make()
        if problem:
            raise FailedError(problem)
        self.target.prepare(contestant)

    def _refused(self, contestant: Contestant, cause: FailedError) -> Iterator[Row]:
        for batch in self.batches:
            yield self._head(contestant, batch) | {"reason": str(cause)}

    def _start(self, contestant: Contestant) -> TimedContestant:
        target = self.target
        print(f"{target.denoiser}: loading {contestant.name}", flush=True)
        worker = target.worker(contestant)
        try:
            request = target.request(contestant).to_dict()
            figures = worker.ask("load", target.timeout, request=request, denoiser=target.denoiser)
        except BaseException:
            worker.close()
            raise
        return TimedContestant(contestant, worker, figures)

    def _row(self, one: TimedContestant, batch: int, resident: list[TimedContestant]) -> Row:
        return (
            self._head(one.contestant, batch)
            | one.figures
            | {
                "seconds": one.seconds,
                "time": summary(one.seconds),
                "speedup": {s.contestant.name: speedup(s.seconds, one.seconds) for s in resident},
            }
        )

    def _head(self, contestant: Contestant, batch: int) -> Row:
        return {
            "denoiser": self.target.denoiser,
            "batch": batch,
            "contestant": contestant.name,
            "bits": contestant.bits,
            "dtype": contestant.dtype or self.target.dtype,
            "repeats": self.repeats,
        }


REFERENCE = Contestant("torch-fp32", "torch_floating", "", "fp32", {}, "float32")


def _close(running: Iterable[TimedContestant]) -> None:
    for one in running:
        one.worker.close()
