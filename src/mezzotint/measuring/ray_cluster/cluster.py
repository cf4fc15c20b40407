"""Ray clusters as executors: tasks and images of one model on many processes."""

# ruff: noqa: PLC0415  (Ray is an extra: it is imported on use)

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from mezzotint.errors import UsageError
from mezzotint.measuring.executors import register_executor
from mezzotint.measuring.in_process import Runner
from mezzotint.measuring.metrics import Figures
from mezzotint.measuring.original import Original
from mezzotint.measuring.ray_cluster.connection import check_reachable, connect, import_ray
from mezzotint.measuring.run import Task
from mezzotint.models import Sampling

if TYPE_CHECKING:
    from mezzotint.measuring.ray_cluster.luggage import Recorded
    from mezzotint.measuring.ray_cluster.pool import Pool

_SHARES = 4
"""Parts of the work that each worker gets at least, so that all end at about the same time."""

_KEPT = 32
"""Objects that stay in the object store for further work; of more, those used last."""

_T = TypeVar("_T")


@register_executor("ray")
@dataclass(eq=False)
class RayCluster:
    """A factory of executors whose workers, Ray actors, build the model once and keep it.

    Workers compute where the model of this process does: one GPU each where that is on CUDA, else
    cores. There are as many as there is room for, also on machines that join during the work; those
    that die are replaced. They end with this object, or where another model takes their place.

    Attributes:
        address: `host:port` of a cluster that this machine is part of; None for one of this machine
            alone, unless the variable RAY_ADDRESS names another.
        workers: number of workers; None for as many as there is room for.
        threads: cores of each worker. Sums are taken in an order that may depend on their number.

    Raises:
        UsageError: Ray is not installed, or a number is out of its domain.
        ExecutorError: nothing answers at the address.
    """

    address: str | None = None
    workers: int | None = None
    threads: int = 1
    _pool: Pool | None = field(default=None, init=False, repr=False)
    _model: tuple[object, object] | None = field(default=None, init=False, repr=False)
    _sent: list[tuple[object, Any]] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        for name, count in (("workers", self.workers), ("threads", self.threads)):
            if count is not None and count < 1:
                raise UsageError(f"{name}: is {count}; give 1 or more")
        import_ray()
        check_reachable(self.address)

    def __call__(self, original: Original) -> RayExecutor:
        """The executor of a model."""
        return RayExecutor(self, original)

    def pool(self, original: Original) -> Pool:
        """The workers that have this model; those of another one are dismissed.

        Raises:
            ExecutorError: the cluster cannot be joined.
        """
        from mezzotint.measuring.ray_cluster.blueprint import Blueprint
        from mezzotint.measuring.ray_cluster.pool import Pool

        model = (original.denoiser, original.pipe)
        if self._pool is None or self._model != model:
            self.dismiss()
            cores = None if self.workers is None else self.workers * self.threads
            connect(self.address, cores)
            self._pool = Pool(Blueprint.of(original, self.threads), self.workers)
            self._model = model
        return self._pool

    def dismiss(self) -> None:
        """End all workers; what is asked for next takes on others."""
        if self._pool is not None:
            self._pool.dismiss()
        self._pool = self._model = None
        self._sent.clear()

    def reference(self, value: object, sent: Callable[[], object]) -> Any:
        """A reference to what is sent of a value: into the object store, where it is not there.

        Only so many are kept for one model. Those that are given up stay there for as long as some
        work holds their references.
        """
        import ray

        found = next((each for each in self._sent if each[0] is value), None)
        if found is None:
            found = value, ray.put(sent())
        else:
            self._sent.remove(found)
        self._sent = [*self._sent, found][-_KEPT:]
        return found[1]


@dataclass(eq=False)
class RayExecutor:
    """Runs tasks on the workers of a cluster, a part of one layer's tasks at a time.

    Attributes:
        cluster: has the workers.
        original: the model.
    """

    cluster: RayCluster
    original: Original

    @property
    def at_once(self) -> int:
        """Number of tasks that there is room for at the same time."""
        return self.cluster.pool(self.original).size

    def figures(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Figures]]:
        """Yield each task with its figures, as soon as they are there.

        Raises:
            ExecutorError: the cluster cannot be joined, has no room, or workers die again and again
                over one task, which is named.
            MezzotintError: whatever a worker raises, as `InProcess.figures`.
        """
        pool = self.cluster.pool(self.original)
        numbers = {id(task): number for number, task in enumerate(tasks)}
        groups = [
            [numbers[id(task)] for task in group] for group in Runner(self.original).groups(tasks)
        ]
        recorded = self._recorded(images=any(task.metric.sees == "images" for task in tasks))
        found = pool.results(
            _parts(groups, _SHARES * pool.size),
            lambda worker, part: worker.figures.remote(recorded, [tasks[each] for each in part]),
            lambda number: f"it measured {tasks[number].key!r}",
        )
        return ((tasks[number], figures) for number, figures in found)

    def images(self, samplings: Sequence[Sampling]) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
        """Yield the images of each sampling with its index, as soon as they are there.

        Raises:
            UsageError: there is no pipeline.
            ExecutorError: as `figures`.
            ModelError: the pipeline does not make images from text, or makes NaN.
        """
        self.original.pipeline()
        return self.cluster.pool(self.original).results(
            [[index] for index in range(len(samplings))],
            lambda worker, part: worker.images.remote([samplings[each] for each in part]),
            lambda index: f"it made the images of seeds from {samplings[index].seed}",
        )

    def _recorded(self, *, images: bool) -> Recorded:
        from mezzotint.measuring.ray_cluster.luggage import Recorded

        return Recorded.of(self.original, self.cluster.reference, images=images)


def _parts(groups: Sequence[Sequence[_T]], count: int) -> list[list[_T]]:
    """The groups in their order, divided so that there are about `count` parts at least."""
    most = max(1, sum(map(len, groups)) // count)
    return [
        list(group[start : start + most])
        for group in groups
        for start in range(0, len(group), most)
    ]
