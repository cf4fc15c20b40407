"""Tasks, who runs them, and the journal of what was found."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from mezzotint._journal import Journal
from mezzotint._progress import track
from mezzotint.errors import CalibrationError
from mezzotint.measuring.change import Change, InputChange, LayerChange
from mezzotint.measuring.metrics import Figures, Metric
from mezzotint.measuring.original import Original
from mezzotint.plan import Choice

Measurements: TypeAlias = Mapping[str, Mapping[Choice, Figures]]
"""Layer → choice → figures, each with all other layers floating."""


@dataclass(frozen=True)
class Task:
    """One measurement of one model: independent of all others, and a pure value.

    Attributes:
        change: what of the model is quantized.
        metric: what is compared.
    """

    change: Change
    metric: Metric

    @property
    def key(self) -> str:
        """Its key in the journal of its model."""
        return f"{self.change.name} | {self.metric.name}"


class Executor(Protocol):
    """Runs tasks on one model: here, or wherever the model and the tasks can be sent."""

    def figures(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Figures]]:
        """Yield each task with its figures as soon as they are there, in any order."""


ExecutorFactory: TypeAlias = Callable[[Original], Executor]
"""Makes the executor for a model."""


def measure(
    tasks: Iterable[Task], executor: Executor, journal: Journal, *, label: str = "Measuring"
) -> list[Figures]:
    """The figures of every task, in their order; those in the journal are not measured again.

    Args:
        tasks: in any order; equal ones are measured once.
        executor: runs those that are missing, and is not asked where none is.
        journal: where figures are kept as they arrive, under their task's key.
        label: for the progress bar.

    Raises:
        CalibrationError: one layer's change makes outputs or images NaN or infinite; the layer is
            named. Of changes that can ruin a model, figures are infinite instead.
    """
    tasks = tuple(tasks)
    missing = {task.key: task for task in tasks if task.key not in journal}
    if missing:
        arriving = executor.figures(list(missing.values()))
        for task, figures in track(arriving, label, len(missing)):
            journal.add(task.key, _stored(task, figures))
    return [_read(journal[task.key]) for task in tasks]


def measure_layers(
    changes: Iterable[LayerChange | InputChange],
    metric: Metric,
    executor: Executor,
    journal: Journal,
) -> dict[str, dict[Choice, Figures]]:
    """The figures of `measure`, by layer and choice in the order of the changes.

    Call this once for changes of inputs only, and once for the others: both kinds go by their
    choice.
    """
    changes = tuple(changes)
    found = measure([Task(change, metric) for change in changes], executor, journal)
    result: dict[str, dict[Choice, Figures]] = {}
    for change, figures in zip(changes, found, strict=True):
        result.setdefault(change.target, {})[change.choice] = figures
    return result


def _stored(task: Task, figures: Figures) -> dict[str, float | None]:
    """JSON knows no infinity."""
    finite = {name: value if math.isfinite(value) else None for name, value in figures.items()}
    if None in finite.values() and not task.change.can_ruin:
        raise CalibrationError(
            f"{task.change}: the denoiser's {task.metric.sees} hold NaN or infinite values"
        )
    return finite


def _read(entry: Mapping[str, float | None]) -> Figures:
    return {name: math.inf if value is None else value for name, value in entry.items()}
