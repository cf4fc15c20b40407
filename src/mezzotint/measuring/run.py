"""Tasks, who runs them, and the journal of what was found."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Protocol, TypeAlias

from mezzotint._journal import Journal
from mezzotint._progress import track
from mezzotint.errors import CalibrationError, JournalError, UsageError
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
        """Its key in the journal of one model, one calibration and one pipeline."""
        return f"{self.change.name} | {self.metric.name}"


def conditional_key(task: Task, original: Original) -> str:
    """The task's key, with all that its figures depend on beside the model and its calls.

    That is the momentum of static ranges where the change has any, the calls where the metric
    compares the outputs of held-out ones alone, and the floating images where it compares those.
    So one journal serves all metrics and calibrations of a model.

    Raises:
        UsageError: images are to be compared, and there is no pipeline.
        ModelError, CalibrationError: the pipeline makes no images that can be compared.
    """
    conditions = [task.key]
    if task.change.static:
        momentum = "none" if original.momentum is None else repr(original.momentum)
        conditions.append(f"momentum {momentum}")
    if task.metric.sees == "outputs" and original.part is not None:
        conditions.append(f"held-out calls {original.part}")
    if task.metric.sees == "images":
        conditions.append(f"images {original.images.digest}")
    return " | ".join(conditions)


class Executor(Protocol):
    """Runs tasks on one model: here, or wherever the model and the tasks can be sent.

    One that runs several at the same time may say how many in an attribute `at_once`, so that what
    is told of the time holds.
    """

    def figures(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Figures]]:
        """Yield each task with its figures as soon as they are there, in any order."""


ExecutorFactory: TypeAlias = Callable[[Original], Executor]
"""Makes the executor for a model."""


def measure(
    tasks: Iterable[Task],
    executor: Executor,
    journal: Journal,
    *,
    key: Callable[[Task], str] = attrgetter("key"),
    label: str = "Measuring",
) -> list[Figures]:
    """The figures of every task, in their order; those in the journal are not measured again.

    Args:
        tasks: in any order; equal ones are measured once.
        executor: runs those that are missing, and is not asked where none is.
        journal: where figures are kept as they arrive.
        key: of a task in the journal: `conditional_key` where that serves more than one
            calibration or pipeline.
        label: for the progress bar.

    Raises:
        CalibrationError: one layer's change makes outputs or images NaN or infinite; the layer is
            named. Of changes that can ruin a model, figures are infinite instead.
        JournalError: figures in the journal are none that the metric can have found; file and unit
            are named.
        UsageError: the executor ends without the figures of a task; the task is named.
    """
    keyed = [(key(task), task) for task in tasks]
    missing = {name: task for name, task in keyed if name not in journal}
    if missing:
        arriving = executor.figures(list(missing.values()))
        for task, figures in track(arriving, label, len(missing)):
            journal.add(key(task), _stored(task, figures))
    for name in missing:
        if name not in journal:
            raise UsageError(
                f"executor {type(executor).__name__}: ended without the figures of {name!r}; it "
                "has to yield those of every task that it is given"
            )
    return [_read(journal, name, task) for name, task in keyed]


def measure_layers(
    changes: Iterable[LayerChange | InputChange],
    metric: Metric,
    executor: Executor,
    journal: Journal,
    *,
    key: Callable[[Task], str] = attrgetter("key"),
) -> dict[str, dict[Choice, Figures]]:
    """The figures of `measure`, by layer and choice in the order of the changes.

    Call this once for changes of inputs only, and once for the others: both kinds go by their
    choice.
    """
    changes = tuple(changes)
    found = measure([Task(change, metric) for change in changes], executor, journal, key=key)
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


def _read(journal: Journal, name: str, task: Task) -> Figures:
    """The figures of a task in the journal, which may come from a file that was damaged."""
    ruined = math.inf if task.change.can_ruin else None
    figures = {key: ruined if value is None else value for key, value in journal[name].items()}
    fault = task.metric.fault(figures)
    if fault is not None:
        raise JournalError(
            f"{journal.source(name) or 'the executor'}: unit {name!r}: {fault}; delete its line to "
            "measure it again"
        )
    return {key: value for key, value in figures.items() if value is not None}
