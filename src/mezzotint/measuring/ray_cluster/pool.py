"""Workers on a cluster: hired as there is room, replaced where they die, given parts of work."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray import exceptions

from mezzotint.errors import ExecutorError, first_line
from mezzotint.measuring.ray_cluster.blueprint import Blueprint
from mezzotint.measuring.ray_cluster.worker import Worker

_LOST = (
    exceptions.RayActorError,
    exceptions.ObjectLostError,
    exceptions.WorkerCrashedError,
    exceptions.NodeDiedError,
    exceptions.OutOfMemoryError,
)
"""Errors of workers, and of the machines that they are on, which say nothing of the work."""

_DEATHS = 3
"""Workers that may die over one unit, or one after another at their start."""

_INTERVAL = 1.0
"""Seconds after which the cluster is asked again for its machines."""

_PATIENCE = 300.0
"""Seconds to wait for a machine where all have left, or for those that are asked for to come."""


@dataclass
class _Part:
    """Units that a worker is at.

    Attributes:
        worker: the actor.
        units: in the order in which it takes them.
        done: how many have come back.
    """

    worker: Any
    units: tuple[int, ...]
    done: int = 0

    @property
    def left(self) -> tuple[int, ...]:
        """Those that have not come back; the first of them is the one in flight."""
        return self.units[self.done :]


class Pool:
    """Actors that have one model.

    Args:
        blueprint: of the model.
        most: number of workers, also of those that wait for a machine; None for as many as there
            is room for.
    """

    def __init__(self, blueprint: Blueprint, most: int | None) -> None:
        self._blueprint = blueprint
        self._most = most
        self._need = blueprint.need
        self._sent = ray.put(blueprint.sent())
        self._starting: dict[Any, Any] = {}
        self._idle: list[Any] = []
        self._busy: dict[Any, _Part] = {}
        self._failed_starts = 0
        self._begun = False
        self._asked = self._seen = time.monotonic()
        self._room = self._places()

    @property
    def size(self) -> int:
        """Number of workers that there may be now."""
        return max(1, self._room if self._most is None else self._most)

    @property
    def source(self) -> str | None:
        """The pipeline's source after which workers build it; None where they are sent a copy."""
        return self._blueprint.source

    def results(
        self,
        parts: Iterable[Sequence[int]],
        call: Callable[[Any, Sequence[int]], Any],
        told: Callable[[int], str],
    ) -> Iterator[tuple[int, Any]]:
        """Yield each unit with its result, as soon as it is there.

        What a worker had not finished when it died is given to another one.

        Args:
            parts: units, as numbers; each part goes to one worker.
            call: calls a generator method of a worker on units, which yields a result for each.
            told: what a worker did at a unit, for messages.

        Raises:
            ExecutorError: there is no room, or workers die again and again.
        """
        waiting = deque(tuple(part) for part in parts)
        deaths: Counter[int] = Counter()
        try:
            while waiting or self._busy:
                self._hire(len(waiting) + len(self._busy))
                while waiting and self._idle:
                    worker, units = self._idle.pop(), waiting.popleft()
                    self._busy[call(worker, units)] = _Part(worker, units)
                for ready in self._ready():
                    if ready in self._starting:
                        self._begin(ready)
                        continue
                    try:
                        found = ray.get(next(ready))
                    except StopIteration:
                        self._idle.append(self._busy.pop(ready).worker)
                        continue
                    except _LOST as cause:
                        left = self._busy.pop(ready).left
                        if left:
                            _count(deaths, left[0], told, cause)
                            waiting.appendleft(left)
                        continue
                    part = self._busy[ready]
                    part.done += 1
                    yield part.units[part.done - 1], found
        except exceptions.RayTaskError as error:
            raise error.cause from error
        except exceptions.RayError as cause:
            raise ExecutorError(
                f"executor ray: the cluster fails ({_reason(cause)}); what has been measured is "
                "kept"
            ) from cause
        finally:
            self._end_busy()

    def dismiss(self) -> None:
        """End all workers, so that there is room for others."""
        self._end_busy()
        for worker in (*self._idle, *self._starting.values()):
            ray.kill(worker)
        self._idle.clear()
        self._starting.clear()

    def _end_busy(self) -> None:
        """End the workers whose work nobody waits for any more."""
        for part in self._busy.values():
            ray.kill(part.worker)
        self._busy.clear()

    def _hire(self, parts: int) -> None:
        """Take on workers, as there is room and work."""
        now = time.monotonic()
        if now - self._asked > _INTERVAL:
            self._room, self._asked = self._places(), now
        if self._room or self._idle or self._busy:
            self._seen = now
        elif (self._most is None and not self._begun) or now - self._seen > _PATIENCE:
            needed = ", ".join(f"{name} {amount:,g}" for name, amount in self._need.items())
            raise ExecutorError(
                f"executor ray: no machine of the cluster has room for a worker ({needed}); add "
                "one, or measure in this process"
            )
        wanted = min(parts, self.size if self._room or self._most else 0)
        for _ in range(wanted - len(self._starting) - len(self._idle) - len(self._busy)):
            worker = self._actor.remote(self._sent)
            self._starting[worker.begin.remote()] = worker

    @property
    def _actor(self) -> Any:
        """The worker's class as Ray places it; dead ones are replaced wherever there is room."""
        resources = dict(self._need)
        return ray.remote(Worker).options(
            num_cpus=resources.pop("CPU"),
            num_gpus=resources.pop("GPU", 0),
            memory=resources.pop("memory"),
            max_restarts=0,
            max_task_retries=0,
        )

    def _begin(self, started: Any) -> None:
        """A worker has built its model, or could not."""
        worker = self._starting.pop(started)
        try:
            unable = ray.get(started)
        except _LOST as cause:
            self._failed_starts += 1
            if self._failed_starts == _DEATHS:
                raise ExecutorError(
                    f"executor ray: {_DEATHS} workers died while they loaded the model "
                    f"({_reason(cause)}); see that their machines have memory for it, or take fewer"
                ) from cause
            return
        self._failed_starts = 0
        if unable is None:
            self._begun = True
            self._idle.append(worker)
            return
        ray.kill(worker)
        if self._blueprint.source is not None:  # else another worker has said so before
            self._blueprint = self._blueprint.by_value()
            self._sent = ray.put(self._blueprint.sent())

    def _ready(self) -> list[Any]:
        """Calls that have come to something; none after a while."""
        calls = [*self._starting, *self._busy]
        if not calls:
            time.sleep(_INTERVAL)
            return []
        ready, _ = ray.wait(calls, num_returns=1, timeout=_INTERVAL, fetch_local=False)
        return list(ready)

    def _places(self) -> int:
        """Workers that the cluster's machines have room for, were there no others."""
        machines = (node["Resources"] for node in ray.nodes() if node["Alive"])
        return sum(
            int(min(machine.get(name, 0.0) // amount for name, amount in self._need.items()))
            for machine in machines
        )


def _count(deaths: Counter[int], unit: int, told: Callable[[int], str], cause: Exception) -> None:
    """Count a worker that died over a unit; a unit that is over so many is what kills them."""
    deaths[unit] += 1
    if deaths[unit] == _DEATHS:
        raise ExecutorError(
            f"executor ray: {_DEATHS} workers died while {told(unit)} ({_reason(cause)}); see that "
            "their machines have memory for it, or take fewer workers"
        ) from cause


def _reason(error: BaseException) -> str:
    return first_line(error).rstrip(".")
